//! The encoder's side: takes frames out of the pool, gives units back.

use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Pid, Signal};

use super::wire::{Configure, Failure, Inbox, Message};
use crate::encode::{EncodeError, Encoder, Output};
use crate::frame::FramePool;

type Writer = Arc<Mutex<UnixStream>>;

/// Runs the encoder's process: its standard input is the socket to the guest, whose process id is `parent`.
///
/// Returns when the guest closes the socket or says something that makes no sense; the process should then end.
///
/// # Errors
/// A sentence for the log; the guest has been told where it could be.
pub fn run(parent: i32) -> Result<(), String> {
    // First the order to die, then the check that there is still someone to outlive: no gap in between.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| e.to_string())?;
    if rustix::process::getppid().map(Pid::as_raw_nonzero).map(std::num::NonZero::get) != Some(parent) {
        return Err("the guest is gone".into());
    }
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| e.to_string())?;
    serve(UnixStream::from(socket))
}

fn serve(mut socket: UnixStream) -> Result<(), String> {
    let mut inbox = Inbox::default();
    let (configure, pool_fd) = receive_configuration(&socket, &mut inbox)?;
    let Configure { settings, size, slots } = *configure;
    let pool = FramePool::open(pool_fd, size, slots).map_err(|e| e.to_string())?;
    let writer: Writer = Arc::new(Mutex::new(socket.try_clone().map_err(|e| e.to_string())?));
    let opened = Encoder::open(&settings, {
        let writer = Arc::clone(&writer);
        move |output| forward(&writer, output)
    });
    let mut encoder = match opened {
        Ok(encoder) => encoder,
        Err(error) => {
            say(&writer, &Message::Failed(failure(&error)));
            return Err(error.to_string());
        }
    };
    say(&writer, &Message::Ready(encoder.in_force()));
    loop {
        while let Some(message) = inbox.next().map_err(|e| e.to_string())? {
            let done = match message {
                Message::Frame { slot, id, force_keyframe } => {
                    let slot = slot as usize;
                    if slot >= pool.slots() {
                        return Err(format!("the guest named slot {slot}"));
                    }
                    encoder.push(id, force_keyframe, |frame| pool.read(slot, frame))
                }
                Message::Change(rates) => {
                    encoder.change(rates).inspect(|()| say(&writer, &Message::Ready(encoder.in_force())))
                }
                _ => return Err("the guest said something unexpected".into()),
            };
            if let Err(error) = done {
                say(&writer, &Message::Failed(failure(&error)));
            }
        }
        if inbox.fill(&mut socket).map_err(|e| e.to_string())? == 0 {
            return Ok(());
        }
    }
}

/// The first message; the pool's descriptor comes with its first byte.
fn receive_configuration(
    socket: &UnixStream,
    inbox: &mut Inbox,
) -> Result<(Box<Configure>, OwnedFd), String> {
    let mut pool = None;
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 4096];
        let received = rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
        .map_err(|e| e.to_string())?;
        if received.bytes == 0 {
            return Err("the guest closed before it said anything".into());
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message {
                pool = pool.or_else(|| fds.next());
            }
        }
        inbox.fill(&bytes[..received.bytes]).map_err(|e| e.to_string())?;
        match (inbox.next().map_err(|e| e.to_string())?, pool.take()) {
            (None, fd) => pool = fd,
            (Some(Message::Configure(configure)), Some(fd)) => return Ok((configure, fd)),
            (Some(_), _) => return Err("the guest did not begin with settings and a pool".into()),
        }
    }
}

fn forward(writer: &Writer, output: Output) {
    let message = match output {
        Output::Unit(unit) => Message::Unit(unit),
        Output::Failed(reason) => Message::Failed(Failure { reason, missing: false, usage: false }),
    };
    say(writer, &message);
}

fn failure(error: &EncodeError) -> Failure {
    Failure { reason: error.to_string(), missing: error.is_missing_component(), usage: error.is_usage() }
}

/// A guest that does not listen any more is noticed by the reading side.
fn say(writer: &Writer, message: &Message) {
    let mut socket = writer.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = socket.write_all(&message.encode());
}
