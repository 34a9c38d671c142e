//! The codec against another implementation of the standard, over connections that take and give bytes in any pieces.

#![expect(clippy::unwrap_used, reason = "tests")]

use futures::{SinkExt, StreamExt};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role as PeerRole;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::*;

/// One end here, the other by the other implementation, with room for so many bytes between them.
async fn ends(role: Role, room: usize) -> (WebSocketBytes<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (near, far) = duplex(room);
    let peer = match role {
        Role::Hub => PeerRole::Client,
        Role::Agent => PeerRole::Server,
    };
    let far = WebSocketStream::from_raw_socket(far, peer, None).await;
    (WebSocketBytes::new(near, role, &TunnelSettings::agent()), far)
}

fn role(agent: bool) -> Role {
    if agent { Role::Agent } else { Role::Hub }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.unwrap().block_on(future)
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|number| (number % 251) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_written_arrives(
        agent: bool,
        room in 1usize..100_000,
        pieces in proptest::collection::vec((0usize..150_000, any::<bool>()), 0..8),
    ) {
        let total = pieces.iter().map(|(length, _)| length).sum();
        let (sent, received) = block_on(async {
            let (mut near, mut far) = ends(role(agent), room).await;
            let sending = async {
                let bytes = bytes(total);
                let mut rest = &bytes[..];
                for (length, flush) in pieces {
                    let (piece, after) = rest.split_at(length);
                    near.write_all(piece).await.unwrap();
                    if flush {
                        near.flush().await.unwrap();
                    }
                    rest = after;
                }
                near.shutdown().await.unwrap();
                bytes
            };
            let receiving = async {
                let mut received = Vec::new();
                while let Some(message) = far.next().await {
                    match message.unwrap() {
                        Message::Binary(bytes) => received.extend_from_slice(&bytes),
                        Message::Close(_) => return received,
                        other => panic!("{other:?}"),
                    }
                }
                received
            };
            tokio::join!(sending, receiving)
        });
        prop_assert!(sent == received);
    }

    #[test]
    fn what_is_sent_is_read(
        agent: bool,
        room in 1usize..100_000,
        messages in proptest::collection::vec((0usize..150_000, 0u8..4), 0..8),
        piece in 1usize..100_000,
    ) {
        let total = messages.iter().map(|(length, _)| length).sum();
        let (sent, received) = block_on(async {
            let (mut near, mut far) = ends(role(agent), room).await;
            let sending = async {
                let bytes = bytes(total);
                let mut rest = &bytes[..];
                for (length, how) in messages {
                    let (message, after) = rest.split_at(length);
                    send(&mut far, message, how).await;
                    rest = after;
                }
                far.close(None).await.unwrap();
                // Reads what was answered: no answer may break the connection.
                while let Some(Ok(_)) = far.next().await {}
                bytes
            };
            let receiving = async {
                let (mut received, mut buffer) = (Vec::new(), vec![0; piece]);
                loop {
                    match near.read(&mut buffer).await.unwrap() {
                        0 => break,
                        length => received.extend_from_slice(&buffer[..length]),
                    }
                }
                near.shutdown().await.unwrap();
                drop(near);
                received
            };
            tokio::join!(sending, receiving)
        });
        prop_assert!(sent == received);
    }
}

/// As one message, with a Ping before it, in two frames, or in two frames with a Ping between them.
async fn send(far: &mut WebSocketStream<DuplexStream>, message: &[u8], how: u8) {
    if how == 1 {
        far.send(Message::Ping(b"still there?".as_slice().into())).await.unwrap();
    }
    if how < 2 {
        return far.send(Message::binary(message.to_vec())).await.unwrap();
    }
    let (begin, end) = message.split_at(message.len() / 2);
    let begin = Frame::message(begin.to_vec(), OpCode::Data(Data::Binary), false);
    let end = Frame::message(end.to_vec(), OpCode::Data(Data::Continue), true);
    far.send(Message::Frame(begin)).await.unwrap();
    if how == 3 {
        far.send(Message::Ping(Default::default())).await.unwrap();
    }
    far.send(Message::Frame(end)).await.unwrap();
}

#[tokio::test]
async fn a_ping_is_answered_with_its_payload_and_never_within_a_frame() {
    for role in [Role::Hub, Role::Agent] {
        let (mut near, mut far) = ends(role, 1000).await;
        far.send(Message::Ping(b"one".as_slice().into())).await.unwrap();
        assert!(futures::poll!(std::pin::pin!(near.read_u8())).is_pending(), "no data came");
        assert_eq!(far.next().await.unwrap().unwrap(), Message::Pong(b"one".as_slice().into()));
        // The frame that is under way does not fit into the connection.
        let large = bytes(40_000);
        let mut writing = std::pin::pin!(near.write_all(&large));
        assert!(futures::poll!(writing.as_mut()).is_pending());
        far.send(Message::Ping(b"two".as_slice().into())).await.unwrap();
        far.send(Message::Ping(b"three".as_slice().into())).await.unwrap();
        assert!(futures::poll!(std::pin::pin!(near.read_u8())).is_pending());
        assert!(near.promised > 0 && near.answer.is_some());
        let rest = large.len() - near.promised;
        let writing = async {
            near.write_all(&large[rest..]).await.unwrap();
            near.flush().await.unwrap();
        };
        let receiving = async {
            let message = far.next().await.unwrap().unwrap();
            assert!(message == Message::binary(large.clone()));
            far.next().await.unwrap().unwrap()
        };
        let ((), answer) = tokio::join!(writing, receiving);
        assert_eq!(answer, Message::Pong(b"three".as_slice().into()), "the later one is answered");
    }
}

#[tokio::test]
async fn pings_of_a_peer_that_reads_no_answers_pile_up_nowhere() {
    let (near, mut far) = duplex(1000);
    let mut near = WebSocketBytes::new(near, Role::Hub, &TunnelSettings::hub());
    let ping = [&[0x89, 0x80 | 100, 0, 0, 0, 0][..], &[7; 100]].concat();
    for _ in 0..5_000 {
        far.write_all(&ping).await.unwrap();
        assert!(futures::poll!(std::pin::pin!(near.read_u8())).is_pending());
    }
    assert!(near.staged.len() <= 2 * STAGE, "{} bytes wait", near.staged.len());
    let close = [0x88, 0x80, 0, 0, 0, 0];
    far.write_all(&close).await.unwrap();
    let reading = async {
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
        near.shutdown().await.unwrap();
    };
    let mut answers = Vec::new();
    let (_, read) = tokio::join!(reading, far.read_to_end(&mut answers));
    read.unwrap();
    assert_eq!(
        answers.last_chunk(),
        Some(&[0x88, 2, 3, 0xe8]),
        "the answer to the close comes all the same"
    );
}

#[tokio::test]
async fn a_close_is_answered_and_is_the_end() {
    let (mut near, mut far) = ends(Role::Hub, 1000).await;
    far.send(Message::binary(b"last words".as_slice())).await.unwrap();
    far.close(None).await.unwrap();
    let mut heard = Vec::new();
    near.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"last words");
    assert_eq!(near.write(b"too late").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert!(matches!(far.next().await, Some(Ok(Message::Close(_)))));
    drop(near);
    assert!(matches!(far.next().await, None | Some(Err(Error::ConnectionClosed))));
}

#[tokio::test]
async fn what_is_no_tunnel_is_an_error() {
    let (mut near, mut far) = ends(Role::Hub, 1000).await;
    far.send(Message::text("hello")).await.unwrap();
    let error = near.read_u8().await.unwrap_err();
    assert!(error.to_string().contains("text"), "{error}");
    for (frame, why) in [
        (Frame::message(&b"x"[..], OpCode::Data(Data::Continue), true), "never began"),
        (
            Frame::message(vec![0; (256 << 10) + 1], OpCode::Data(Data::Binary), true),
            "longer than",
        ),
    ] {
        let (mut near, mut far) = ends(Role::Hub, 1 << 20).await;
        far.send(Message::Frame(frame)).await.unwrap();
        let error = near.read_u8().await.unwrap_err();
        assert!(
            error.kind() == io::ErrorKind::InvalidData && error.to_string().contains(why),
            "{error}"
        );
    }
    let (mut near, mut far) = ends(Role::Hub, 1000).await;
    let begun = || Message::Frame(Frame::message(&b""[..], OpCode::Data(Data::Binary), false));
    far.send(begun()).await.unwrap();
    far.send(begun()).await.unwrap();
    let error = near.read_u8().await.unwrap_err();
    assert!(error.to_string().contains("within another"), "{error}");
}

#[tokio::test]
async fn a_connection_that_ends_anywhere_else_was_cut() {
    let mut frame = Vec::new();
    FrameHeader {
        is_final: true,
        mask: Some([1, 2, 3, 4]),
        opcode: OpCode::Data(Data::Binary),
        ..FrameHeader::default()
    }
    .format(300, &mut frame)
    .unwrap();
    frame.extend(vec![0; 300]);
    for length in [0, 1, 2, 3, 7, 8, 100, frame.len() - 1, frame.len()] {
        let (near, mut far) = duplex(1000);
        far.write_all(&frame[..length]).await.unwrap();
        drop(far);
        let mut near = WebSocketBytes::new(near, Role::Hub, &TunnelSettings::hub());
        let error = near.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "after {length} bytes");
    }
}

#[tokio::test]
async fn whoever_lies_idle_has_no_buffers() {
    let (mut near, mut far) = ends(Role::Agent, 1000).await;
    near.write_all(b"hello").await.unwrap();
    assert_ne!(near.staged.capacity(), 0);
    near.flush().await.unwrap();
    assert_eq!(near.staged.capacity(), 0);
    assert_eq!(far.next().await.unwrap().unwrap(), Message::binary(b"hello".as_slice()));
}

#[test]
fn the_answer_to_a_key_is_that_of_the_standard() {
    assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}
