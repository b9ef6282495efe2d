//! A SPICE server that follows a script: links as a real one does, then sends and expects what a test says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::thread::JoinHandle;
use std::time::Duration;

use rsa::pkcs8::EncodePublicKey;
use rsa::{Oaep, PrivateKey};
use sha1::Sha1;
use spice::client::Session;
use spice::link::{LinkMessage, LinkReply, check_header, common_caps, display_caps};
use spice::messages::{
    ChannelsList, MINI_HEADER_LEN, MainInit, Rect, StreamCreate, client, display_init, frame, parse_header,
    server,
};
use spice::stream_device::VideoCodec;

/// How long anything may take before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
pub(crate) const SESSION: u32 = 0x1234_5678;
pub(crate) const TICKET_REFUSED: u32 = 7;

static KEY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::new(&mut rand::rng(), 1024).unwrap());

/// The server's end of one channel.
pub(crate) struct Peer(pub(crate) TcpStream);

impl Peer {
    pub(crate) fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn link_message(&mut self) -> LinkMessage {
        let mut body = vec![0; check_header(&self.bytes()).unwrap()];
        self.0.read_exact(&mut body).unwrap();
        LinkMessage::decode(&body).unwrap()
    }

    /// Does the link stage and gives what the client asked for.
    pub(crate) fn link(&mut self, ticket: &str) -> LinkMessage {
        let message = self.link_message();
        let caps = common_caps::AUTH_SELECTION | common_caps::AUTH_SPICE | common_caps::MINI_HEADER;
        assert_eq!(message.common_caps, [caps]);
        let public_key = KEY.to_public_key().to_public_key_der().unwrap().into_vec();
        let reply = LinkReply { error: 0, public_key, common_caps: vec![caps], channel_caps: vec![0] };
        self.0.write_all(&reply.encode()).unwrap();
        assert_eq!(u32::from_le_bytes(self.bytes()), 1, "authentication by ticket");
        let sealed: [u8; 128] = self.bytes();
        let secret = KEY.decrypt(Oaep::<Sha1>::new(), &sealed).unwrap();
        assert_eq!(secret.last(), Some(&0));
        let right = &secret[..secret.len() - 1] == ticket.as_bytes();
        self.0.write_all(&if right { 0 } else { TICKET_REFUSED }.to_le_bytes()).unwrap();
        message
    }

    pub(crate) fn send(&mut self, kind: u16, payload: &[u8]) {
        self.0.write_all(&frame(kind, payload)).unwrap();
    }

    pub(crate) fn receive(&mut self) -> (u16, Vec<u8>) {
        let (kind, size) = parse_header(&self.bytes::<MINI_HEADER_LEN>());
        let mut payload = vec![0; size as usize];
        self.0.read_exact(&mut payload).unwrap();
        (kind, payload)
    }

    /// What the client sends from here until it closes the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the client did not close: {error}"),
        }
        rest
    }

    pub(crate) fn init(&mut self) {
        let init = MainInit {
            session_id: SESSION,
            display_channels_hint: 1,
            supported_mouse_modes: 3,
            current_mouse_mode: 1,
            agent_connected: 0,
            agent_tokens: 10,
            multi_media_time: 5000,
            ram_hint: 0,
        };
        self.send(server::MAIN_INIT, &init.encode());
        assert_eq!(self.receive(), (client::MAIN_ATTACH_CHANNELS, Vec::new()));
    }

    pub(crate) fn channels(&mut self, list: &[(u8, u8)]) {
        self.send(server::MAIN_CHANNELS_LIST, &ChannelsList(list.to_vec()).encode());
    }

    pub(crate) fn accept_display(listener: &TcpListener, ticket: &str) -> Self {
        let mut display = Self::accept(listener);
        let message = display.link(ticket);
        assert_eq!((message.connection_id, message.channel_type), (SESSION, 2));
        let needed = display_caps::SIZED_STREAM | display_caps::STREAM_REPORT | display_caps::MULTI_CODEC;
        assert_eq!(message.channel_caps[0] & needed, needed);
        assert_eq!(display.receive(), (client::DISPLAY_INIT, display_init()));
        display
    }
}

/// Runs a script with a listener on a free port; join the thread to see whether it went through.
pub(crate) fn serve<T: Send + 'static>(
    script: impl FnOnce(TcpListener) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, std::thread::spawn(move || script(listener)))
}

/// A linked session, and a script that goes on with its main and display channel.
pub(crate) fn session<T: Send + 'static>(
    script: impl FnOnce(Peer, Peer) -> T + Send + 'static,
) -> (Session, JoinHandle<T>) {
    let (address, thread) = serve(move |listener| {
        let mut main = Peer::accept(&listener);
        let message = main.link("");
        assert_eq!((message.connection_id, message.channel_type), (0, 1));
        main.init();
        main.channels(&[(1, 0), (3, 0), (2, 0)]);
        let display = Peer::accept_display(&listener, "");
        script(main, display)
    });
    (Session::connect(address, None, DEADLINE).unwrap(), thread)
}

/// STREAM_CREATE of a stream of 640 × 360 pixels in VP8.
pub(crate) fn create(id: u32) -> StreamCreate {
    StreamCreate {
        surface_id: 0,
        id,
        flags: 1,
        codec: VideoCodec::Vp8,
        stamp: 0,
        width: 640,
        height: 360,
        source_width: 640,
        source_height: 360,
        dest: Rect { top: 0, left: 0, bottom: 360, right: 640 },
    }
}
