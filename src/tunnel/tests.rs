//! The multiplexer against another implementation of yamux, and against peers that break its rules.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::frame::{ACK, FIN, HEAD, Head, INITIAL_WINDOW, Kind, RST, SYN};
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

type Opened = oneshot::Sender<yamux::Stream>;

/// The other implementation: opens a stream for each sender, and gives those that it takes in.
fn peer(io: DuplexStream, role: Role) -> (mpsc::UnboundedSender<Opened>, mpsc::UnboundedReceiver<yamux::Stream>) {
    let mode = match role {
        Role::Hub => yamux::Mode::Server,
        Role::Agent => yamux::Mode::Client,
    };
    let mut connection = yamux::Connection::new(io.compat(), yamux::Config::default(), mode);
    let (wanted, mut wants) = mpsc::unbounded_channel::<Opened>();
    let (incoming, taken) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut waiting = VecDeque::new();
        poll_fn(|cx| {
            loop {
                while let Poll::Ready(Some(want)) = wants.poll_recv(cx) {
                    waiting.push_back(want);
                }
                if !waiting.is_empty()
                    && let Poll::Ready(Ok(stream)) = connection.poll_new_outbound(cx)
                {
                    let _ = waiting.pop_front().unwrap().send(stream);
                    continue;
                }
                match std::task::ready!(connection.poll_next_inbound(cx)) {
                    Some(Ok(stream)) => drop(incoming.send(stream)),
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
    });
    (wanted, taken)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime
        .unwrap()
        .block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("it goes on") })
}

fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|number| ((number + seed) % 251) as u8).collect()
}

fn other(role: Role) -> Role {
    match role {
        Role::Hub => Role::Agent,
        Role::Agent => Role::Hub,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn streams_carry_everything_both_ways(
        hub: bool,
        room in 100usize..200_000,
        ours in proptest::collection::vec((0usize..700_000, 1usize..100_000), 0..5),
        theirs in proptest::collection::vec(0usize..700_000, 0..5),
    ) {
        block_on(async {
            let role = if hub { Role::Hub } else { Role::Agent };
            let (near, far) = duplex(room);
            let mut tunnel = start(near, role, &TunnelSettings::agent());
            let (wanted, mut taken) = peer(far, other(role));
            // Each end echoes what the other one opens.
            tokio::spawn(async move {
                while let Some(stream) = taken.recv().await {
                    tokio::spawn(async move {
                        let (reader, mut writer) = stream.split();
                        futures::io::copy(reader, &mut writer).await.unwrap();
                        writer.close().await.unwrap();
                    });
                }
            });
            tokio::spawn(async move {
                while let Some(stream) = tunnel.incoming.recv().await {
                    tokio::spawn(async move {
                        let (mut reader, mut writer) = tokio::io::split(stream);
                        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                        writer.shutdown().await.unwrap();
                    });
                }
            });
            let mut exchanges = tokio::task::JoinSet::new();
            for (seed, (length, piece)) in ours.into_iter().enumerate() {
                let stream = tunnel.handle.open().unwrap();
                exchanges.spawn(async move {
                    let (mut reader, mut writer) = tokio::io::split(stream);
                    let sent = bytes(length, seed);
                    let writing = async {
                        for piece in sent.chunks(piece) {
                            writer.write_all(piece).await.unwrap();
                        }
                        writer.shutdown().await.unwrap();
                    };
                    let mut echo = Vec::new();
                    tokio::join!(writing, async { reader.read_to_end(&mut echo).await.unwrap() });
                    assert!(echo == sent, "ours of {length} bytes");
                });
            }
            for (seed, length) in theirs.into_iter().enumerate() {
                let (sender, stream) = oneshot::channel();
                wanted.send(sender).unwrap();
                exchanges.spawn(async move {
                    let (mut reader, mut writer) = stream.await.unwrap().split();
                    let sent = bytes(length, seed);
                    let writing = async {
                        writer.write_all(&sent).await.unwrap();
                        writer.close().await.unwrap();
                    };
                    let mut echo = Vec::new();
                    futures::join!(writing, async { reader.read_to_end(&mut echo).await.unwrap() });
                    assert!(echo == sent, "theirs of {length} bytes");
                });
            }
            while let Some(done) = exchanges.join_next().await {
                done.unwrap();
            }
        });
    }

    #[test]
    fn no_bytes_stop_the_process(garbage: Vec<u8>, frames in proptest::collection::vec((0u8..4, 0u16..16, 0u32..6, 0u32..300), 0..40)) {
        block_on(async {
            let (near, mut far) = duplex(1 << 20);
            let mut tunnel = start(near, Role::Hub, &TunnelSettings::hub());
            tokio::spawn(async move { while tunnel.incoming.recv().await.is_some() {} });
            for (kind, flags, stream, length) in frames {
                let kind = [Kind::Data, Kind::WindowUpdate, Kind::Ping, Kind::GoAway][usize::from(kind)];
                far.write_all(&Head { kind, flags, stream, length }.encode()).await.unwrap();
                if kind == Kind::Data {
                    far.write_all(&vec![0; length as usize]).await.unwrap();
                }
            }
            far.write_all(&garbage).await.unwrap();
            drop(far);
            tunnel.handle.closed().cancelled().await;
        });
    }
}

/// A tunnel whose other end is written by hand, with so much room between them.
fn by_hand(room: usize) -> (Tunnel, DuplexStream) {
    let (near, far) = duplex(room);
    (start(near, Role::Hub, &TunnelSettings::hub()), far)
}

fn frame(kind: Kind, flags: u16, stream: u32, length: u32) -> [u8; HEAD] {
    let head = Head {
        kind,
        flags,
        stream,
        length,
    };
    head.encode()
}

/// The next frame that is no sign of life.
async fn next(far: &mut DuplexStream) -> (Head, Vec<u8>) {
    tokio::time::timeout(PATIENCE, next_frame(far)).await.expect("a frame comes")
}

async fn next_frame(far: &mut DuplexStream) -> (Head, Vec<u8>) {
    loop {
        let mut head = [0; HEAD];
        far.read_exact(&mut head).await.unwrap();
        let head = Head::decode(head).unwrap();
        let mut body = vec![0; if head.kind == Kind::Data { head.length as usize } else { 0 }];
        far.read_exact(&mut body).await.unwrap();
        if head.kind != Kind::Ping {
            return (head, body);
        }
    }
}

#[tokio::test]
async fn who_breaks_the_rules_loses_the_tunnel() {
    let much = u32::try_from(INITIAL_WINDOW).unwrap();
    let overrun = [
        frame(Kind::Data, SYN, 1, much).to_vec(),
        vec![0; INITIAL_WINDOW],
        frame(Kind::Data, 0, 1, 1).to_vec(),
        vec![0],
    ]
    .concat();
    let after_end = [&frame(Kind::Data, SYN | FIN, 1, 0)[..], &frame(Kind::Data, 0, 1, 1), &[0]].concat();
    let pings = frame(Kind::Ping, SYN, 0, 0).repeat(10_000);
    for (sent, what) in [
        (overrun, "more than the window"),
        (after_end, "data after the end"),
        (frame(Kind::Data, SYN, 1, 0).repeat(2), "a stream twice"),
        (frame(Kind::Data, SYN, 2, 0).to_vec(), "a stream of ours"),
        (frame(Kind::Data, SYN, 1, 2 << 20).to_vec(), "an endless frame"),
        (pings, "pings without end"),
        (vec![9; HEAD], "nonsense"),
    ] {
        // Nobody reads what is answered, so that it piles up.
        let (mut tunnel, mut far) = by_hand(4 << 10);
        let _ = tokio::time::timeout(PATIENCE, far.write_all(&sent))
            .await
            .expect("it is read");
        let ended = tokio::time::timeout(PATIENCE, tunnel.handle.closed().cancelled_owned()).await;
        assert!(ended.is_ok(), "{what}");
        drop(tunnel.incoming.try_recv());
    }
}

#[tokio::test]
async fn a_drop_sends_what_was_written_and_then_a_reset() {
    let (mut tunnel, mut far) = by_hand(1 << 20);
    let unheard = tunnel.handle.open().unwrap();
    drop(unheard);
    let mut stream = tunnel.handle.open().unwrap();
    stream.write_all(b"last words").await.unwrap();
    drop(stream);
    let (head, body) = next(&mut far).await;
    assert_eq!(
        (head.flags, body.as_slice()),
        (SYN, &b"last words"[..]),
        "of the first one nothing is heard"
    );
    let (reset, _) = next(&mut far).await;
    assert_eq!((reset.flags, reset.stream), (RST, head.stream));
    // Of a stream that both ends finished there is no reset; one of them is not enough: the other might speak for ever.
    for (id, both) in [(1, true), (3, false)] {
        let flags = if both { SYN | FIN } else { SYN };
        far.write_all(&frame(Kind::Data, flags, id, 0)).await.unwrap();
        let mut stream = tunnel.incoming.recv().await.unwrap();
        stream.write_all(b"answer").await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream);
        let (head, body) = next(&mut far).await;
        assert_eq!((head.flags, body.as_slice()), (ACK | FIN, &b"answer"[..]));
        if !both {
            let (head, _) = next(&mut far).await;
            assert_eq!((head.flags, head.stream), (RST, id));
        }
        far.write_all(&frame(Kind::Data, 0, id, 0)).await.unwrap();
        far.write_all(&frame(Kind::Ping, SYN, 0, id)).await.unwrap();
        let mut pong = [0; HEAD];
        far.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, frame(Kind::Ping, ACK, 0, id));
    }
    assert_eq!(tunnel.handle.open_streams(), 0);
}

#[tokio::test]
async fn whoever_stands_still_is_broken_off() {
    let (tunnel, mut far) = by_hand(1 << 20);
    let mut stream = tunnel.handle.open().unwrap();
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    let (head, _) = next(&mut far).await;
    far.write_all(&frame(Kind::Data, ACK, head.stream, 6)).await.unwrap();
    far.write_all(b"answer").await.unwrap();
    let abort = stream.abort_handle();
    let watching = async {
        stream.over().await;
        stream.read_u8().await.unwrap_err().kind()
    };
    let aborting = async {
        tokio::task::yield_now().await;
        abort.abort();
        abort.abort();
    };
    let (error, ()) = tokio::join!(watching, aborting);
    assert_eq!(error, std::io::ErrorKind::ConnectionReset);
    let (reset, _) = next(&mut far).await;
    assert_eq!((reset.flags, reset.stream), (RST, head.stream));
    drop(stream);
    abort.abort();
    far.write_all(&frame(Kind::Ping, SYN, 0, 7)).await.unwrap();
    let mut pong = [0; HEAD];
    far.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, frame(Kind::Ping, ACK, 0, 7), "there is one reset");
    assert_eq!(tunnel.handle.open_streams(), 0);
}

#[tokio::test]
async fn a_reset_breaks_reads_and_writes_after_what_came_before() {
    let (mut tunnel, mut far) = by_hand(1 << 20);
    far.write_all(&frame(Kind::Data, SYN, 1, 5)).await.unwrap();
    far.write_all(b"begun").await.unwrap();
    let mut stream = tunnel.incoming.recv().await.unwrap();
    far.write_all(&frame(Kind::WindowUpdate, RST, 1, 0)).await.unwrap();
    let mut heard = Vec::new();
    let error = stream.read_to_end(&mut heard).await.unwrap_err();
    assert_eq!(
        (error.kind(), heard.as_slice()),
        (std::io::ErrorKind::ConnectionReset, &b"begun"[..])
    );
    assert!(stream.write_all(b"x").await.is_err());
    drop(stream);
    assert_eq!(tunnel.handle.open_streams(), 0);
}

#[tokio::test]
async fn a_small_call_overtakes_what_waits_in_its_stream() {
    let (tunnel, mut far) = by_hand(1 << 20);
    let mut large = tunnel.handle.open().unwrap();
    let mut small = tunnel.handle.open().unwrap();
    large.write_all(&vec![0; INITIAL_WINDOW]).await.unwrap();
    small.write_all(b"small").await.unwrap();
    let mut before = 0;
    loop {
        let (_, body) = next(&mut far).await;
        if body == b"small" {
            break;
        }
        before += body.len();
    }
    assert!(before <= 2 * (64 << 10), "{before} bytes came first");
}
