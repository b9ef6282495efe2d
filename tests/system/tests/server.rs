//! The wrapper with the real library: a client of ours links, and what the port gives comes out.

#![allow(clippy::unwrap_used)] // A test that cannot go on should panic.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use spice::client::{DisplayEvent, Session};
use spice::stream_device::{Message, Parser, VideoCodec};
use spice_server::{Access, ChannelChange, Options, PortHandler, Server, ServerError};

const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Port {
    to_server: VecDeque<u8>,
    from_server: Vec<u8>,
}

struct Handler(Rc<RefCell<Port>>);

impl PortHandler for Handler {
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let mut port = self.0.borrow_mut();
        let n = buffer.len().min(port.to_server.len());
        for (to, from) in buffer.iter_mut().zip(port.to_server.drain(..n)) {
            *to = from;
        }
        n
    }
    fn write(&mut self, bytes: &[u8]) -> usize {
        self.0.borrow_mut().from_server.extend_from_slice(bytes);
        bytes.len()
    }
    fn accepting(&mut self, _: bool) {}
}

fn start(ip: Ipv4Addr, access: Access) -> (Result<Server, ServerError>, Rc<RefCell<Port>>) {
    let port = Rc::new(RefCell::new(Port::default()));
    let options = Options { listener: TcpListener::bind((ip, 0)).unwrap(), access, name: "test".into() };
    (Server::start(options, Box::new(Handler(Rc::clone(&port)))), port)
}

#[test]
fn what_the_port_gives_reaches_a_client() {
    let (server, port) = start(Ipv4Addr::LOCALHOST, Access::Ticket("secret".into()));
    let mut server = server.unwrap();
    server.set_port_open(true);
    let address = server.address();
    let client = std::thread::spawn(move || {
        let mut session = Session::connect(address, Some("secret"), DEADLINE).unwrap();
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            if let Some(DisplayEvent::StreamData(frame)) = session.display().next_event(DEADLINE).unwrap() {
                return frame.data;
            }
        }
        panic!("no frame came");
    });
    let frame = vec![7u8; 100_000];
    let (mut parser, mut fed, mut initialized) = (Parser::new(), 0, 0);
    let started = Instant::now();
    while !client.is_finished() {
        assert!(started.elapsed() < DEADLINE);
        server.turn(&mut [], Some(Duration::from_millis(20))).unwrap();
        while let Some(event) = server.next_event() {
            initialized += usize::from(event.change == ChannelChange::Initialized);
        }
        let bytes = std::mem::take(&mut port.borrow_mut().from_server);
        for message in parser.push(&bytes).unwrap() {
            if matches!(&message, Message::StartStop(codecs) if codecs.contains(&VideoCodec::Mjpeg)) {
                let format = Message::Format { width: 64, height: 64, codec: VideoCodec::Mjpeg };
                port.borrow_mut().to_server.extend(format.encode());
                port.borrow_mut().to_server.extend(Message::Data(frame.clone()).encode());
                fed += 1;
            }
        }
        if fed > 0 {
            server.wake_port();
        }
    }
    assert_eq!(client.join().unwrap(), frame);
    assert!(initialized >= 2, "main and display: {initialized}");
    assert!(server.bytes_sent() > 100_000, "{}", server.bytes_sent());
}

#[test]
fn open_access_beyond_loopback_is_refused() {
    let (server, _) = start(Ipv4Addr::UNSPECIFIED, Access::Open);
    assert!(matches!(server, Err(ServerError::TicketNeeded(_))));
}

#[test]
fn tickets_that_the_library_cannot_take_are_refused() {
    for ticket in ["", "with\0nul", &"x".repeat(61)] {
        let (server, _) = start(Ipv4Addr::LOCALHOST, Access::Ticket(ticket.into()));
        assert!(matches!(server, Err(ServerError::Ticket { .. })), "{ticket:?}");
    }
}

#[test]
fn a_thread_can_have_one_server_after_another_but_not_two_at_once() {
    for _ in 0..3 {
        let (first, _) = start(Ipv4Addr::LOCALHOST, Access::Open);
        let (second, _) = start(Ipv4Addr::LOCALHOST, Access::Open);
        assert!(matches!(second, Err(ServerError::SecondServer)));
        let mut first = first.unwrap();
        first.set_port_open(true);
        first.turn(&mut [], Some(Duration::ZERO)).unwrap();
    }
}

#[test]
fn the_library_in_use_has_a_name() {
    assert!(spice_server::version().starts_with("libspice-server.so"), "{}", spice_server::version());
}
