//! The tunnel over real sockets: both directions, back-pressure, limits, dead peers, orderly and other ends.

use std::time::{Duration, Instant};

use branchline::tunnel::websocket::WebSocketBytes;
use branchline::tunnel::{KeepAlive, OpenError, Role, Tunnel, TunnelSettings, TunnelStream, control, start};
use branchline::wire::control::{ToAgent, ToHub};
use branchline::wire::header::StreamHeader;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(20);

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

async fn end(socket: TcpStream, role: Role, settings: &TunnelSettings) -> Tunnel {
    socket.set_nodelay(true).unwrap();
    start(WebSocketBytes::new(socket, role, settings), role, settings)
}

async fn pair_with(hub: &TunnelSettings, agent: &TunnelSettings) -> (Tunnel, Tunnel) {
    let (dialled, accepted) = sockets().await;
    tokio::join!(end(accepted, Role::Hub, hub), end(dialled, Role::Agent, agent))
}

async fn pair() -> (Tunnel, Tunnel) {
    pair_with(&TunnelSettings::hub(), &TunnelSettings::agent()).await
}

fn echo_everything(mut tunnel: Tunnel) {
    tokio::spawn(async move {
        while let Some(stream) = tunnel.incoming.recv().await {
            tokio::spawn(echo(stream));
        }
    });
}

async fn echo(stream: TunnelStream) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut reader, &mut writer).await;
    let _ = writer.shutdown().await;
}

async fn round_trip(mut stream: TunnelStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn both_sides_open_streams() {
    let (hub, agent) = pair().await;
    let (hub_handle, agent_handle) = (hub.handle.clone(), agent.handle.clone());
    echo_everything(hub);
    echo_everything(agent);
    let large = vec![7u8; 3 << 20];
    let from_hub = hub_handle.open().unwrap();
    let from_agent = agent_handle.open().unwrap();
    // A megabyte is more than a window: the echo must be read while it is written.
    let (mut reader, mut writer) = tokio::io::split(from_hub);
    let writing = async {
        writer.write_all(&large).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut echoed = Vec::new();
    let (_, read) = tokio::join!(writing, reader.read_to_end(&mut echoed));
    read.unwrap();
    assert_eq!(echoed, large);
    assert_eq!(round_trip(from_agent, b"from the agent").await, b"from the agent");
    drop((reader, writer));
    assert_eq!(hub_handle.open_streams(), 0, "ended streams give their slots back");
}

#[tokio::test]
async fn a_stalled_stream_stalls_no_other() {
    let (hub, mut agent) = pair().await;
    let mut stalled = Vec::new();
    for _ in 0..32 {
        let mut stream = hub.handle.open().unwrap();
        let fills = async { while stream.write_all(&[0; 16 << 10]).await.is_ok() {} };
        assert!(
            tokio::time::timeout(Duration::from_millis(20), fills).await.is_err(),
            "nobody reads, so it blocks"
        );
        stalled.push((stream, agent.incoming.recv().await.unwrap()));
    }
    let lively = hub.handle.open().unwrap();
    let answer = tokio::join!(round_trip(lively, b"still alive"), async {
        echo(agent.incoming.recv().await.unwrap()).await;
    });
    assert_eq!(answer.0, b"still alive");
}

#[tokio::test]
async fn the_limit_is_an_error_and_not_the_end() {
    let hub = TunnelSettings {
        usable_streams: 4,
        ..TunnelSettings::hub()
    };
    let (hub, agent) = pair_with(&hub, &TunnelSettings::agent()).await;
    echo_everything(agent);
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(hub.handle.open().unwrap());
    }
    assert_eq!(hub.handle.open().unwrap_err(), OpenError::TooManyStreams { limit: 4 });
    streams.pop();
    assert_eq!(round_trip(hub.handle.open().unwrap(), b"again").await, b"again");
}

#[tokio::test]
async fn a_process_has_a_limit_over_all_its_tunnels() {
    let settings = TunnelSettings {
        process_streams: std::sync::Arc::new(tokio::sync::Semaphore::new(1)),
        ..TunnelSettings::hub()
    };
    let (one, _one) = pair_with(&settings, &TunnelSettings::agent()).await;
    let (two, _two) = pair_with(&settings, &TunnelSettings::agent()).await;
    let held = one.handle.open().unwrap();
    assert_eq!(two.handle.open().unwrap_err(), OpenError::ProcessFull);
    drop(held);
    assert!(two.handle.open().is_ok());
}

#[tokio::test]
async fn a_receiver_resets_what_is_too_much_and_goes_on() {
    let agent = TunnelSettings {
        accepted_streams: 2,
        ..TunnelSettings::agent()
    };
    let (hub, agent) = pair_with(&TunnelSettings::hub(), &agent).await;
    echo_everything(agent);
    let mut served = Vec::new();
    for _ in 0..2 {
        let mut stream = hub.handle.open().unwrap();
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        served.push(stream);
    }
    let mut refused = hub.handle.open().unwrap();
    refused.write_all(b"x").await.unwrap();
    let error = refused.read_exact(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(round_trip(served.remove(0), b"y").await, b"y", "the tunnel stands");
}

#[tokio::test]
async fn a_thousand_slow_requests_can_be_open() {
    let (hub, mut agent) = pair().await;
    let mut open = Vec::new();
    for _ in 0..1_000 {
        let mut stream = hub.handle.open().unwrap();
        stream.write_all(b"a request that is not answered").await.unwrap();
        open.push((stream, agent.incoming.recv().await.unwrap()));
    }
    assert!(matches!(hub.handle.open(), Err(OpenError::TooManyStreams { limit: 1_000 })));
    drop(open);
    let (stream, served) = (hub.handle.open().unwrap(), agent.incoming.recv());
    let answer = tokio::join!(round_trip(stream, b"then"), async { echo(served.await.unwrap()).await });
    assert_eq!(answer.0, b"then");
    assert!(!hub.handle.is_closed());
}

#[tokio::test]
async fn a_reset_is_no_orderly_end() {
    let (hub, mut agent) = pair().await;
    let mut orderly = hub.handle.open().unwrap();
    orderly.write_all(b"all").await.unwrap();
    orderly.shutdown().await.unwrap();
    let mut cut = hub.handle.open().unwrap();
    cut.write_all(b"hal").await.unwrap();
    let mut first = agent.incoming.recv().await.unwrap();
    let mut second = agent.incoming.recv().await.unwrap();
    drop(cut);
    let mut text = String::new();
    assert_eq!(first.read_to_string(&mut text).await.unwrap(), 3);
    let error = second.read_to_string(&mut text).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn closing_ends_both_sides_and_their_streams() {
    let (hub, mut agent) = pair().await;
    let mut stream = hub.handle.open().unwrap();
    stream.write_all(b"last words").await.unwrap();
    let mut served = agent.incoming.recv().await.unwrap();
    let waiting = tokio::spawn(async move { stream.read(&mut [0]).await });
    tokio::time::timeout(PATIENCE, hub.handle.close()).await.unwrap();
    assert!(waiting.await.unwrap().is_err(), "a waiting reader is woken");
    assert_eq!(hub.handle.open().unwrap_err(), OpenError::Closed);
    let mut words = [0; 10];
    served.read_exact(&mut words).await.unwrap();
    assert_eq!(&words, b"last words", "what was written before is sent");
    tokio::time::timeout(PATIENCE, agent.handle.closed().cancelled())
        .await
        .unwrap();
    assert!(agent.incoming.recv().await.is_none());
}

#[tokio::test]
async fn an_abandoned_tunnel_ends() {
    let quick = TunnelSettings {
        keep_alive: quick_keep_alive(),
        ..TunnelSettings::hub()
    };
    let (hub, agent) = pair_with(&quick, &TunnelSettings::agent()).await;
    drop(hub);
    tokio::time::timeout(PATIENCE, agent.handle.closed().cancelled())
        .await
        .unwrap();
}

fn quick_keep_alive() -> KeepAlive {
    KeepAlive {
        ping_every: Duration::from_millis(100),
        dead_after: Duration::from_millis(350),
    }
}

/// Passes bytes on until it is told to stop, then keeps both connections open and silent: what a dead link looks like.
async fn link(mut cut: tokio::sync::oneshot::Receiver<()>) -> (TcpStream, TcpStream) {
    let (dialled, mut left) = sockets().await;
    let (mut right, accepted) = sockets().await;
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut left, &mut right) => {}
            _ = &mut cut => std::future::pending().await,
        }
    });
    (dialled, accepted)
}

#[tokio::test]
async fn both_sides_notice_a_dead_link() {
    let (cut, is_cut) = tokio::sync::oneshot::channel();
    let (dialled, accepted) = link(is_cut).await;
    let quick = |settings| TunnelSettings {
        keep_alive: quick_keep_alive(),
        ..settings
    };
    let hub = end(accepted, Role::Hub, &quick(TunnelSettings::hub())).await;
    let agent = end(dialled, Role::Agent, &quick(TunnelSettings::agent())).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(!hub.handle.is_closed() && !agent.handle.is_closed(), "an idle tunnel lives");
    let mut stream = hub.handle.open().unwrap();
    stream.write_all(b"?").await.unwrap();
    cut.send(()).unwrap();
    let since = Instant::now();
    assert!(stream.read(&mut [0]).await.is_err(), "a request that waits is told");
    hub.handle.closed().cancelled().await;
    agent.handle.closed().cancelled().await;
    assert!(since.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_peer_that_speaks_no_tunnel_ends_it() {
    let (mut dialled, accepted) = sockets().await;
    let hub = end(accepted, Role::Hub, &TunnelSettings::hub()).await;
    dialled.write_all(&[0xff; 4096]).await.unwrap();
    tokio::time::timeout(PATIENCE, hub.handle.closed().cancelled()).await.unwrap();
}

#[tokio::test]
async fn control_messages_go_both_ways() {
    let (mut hub, agent) = pair().await;
    let mut opened = agent.handle.open().unwrap();
    control::write_header(&mut opened, &StreamHeader::Control { version: 1 })
        .await
        .unwrap();
    let mut accepted = hub.incoming.recv().await.unwrap();
    let header = control::read_header(&mut accepted).await.unwrap();
    assert_eq!(header, StreamHeader::Control { version: 1 });
    let (mut to_hub, mut from_hub) = control::split::<ToHub, ToAgent>(opened);
    let (mut to_agent, mut from_agent) = control::split::<ToAgent, ToHub>(accepted);
    let attachment = vec![9u8; 2 << 20];
    let drain = ToAgent::Drain {};
    let (sent, received) = tokio::join!(to_agent.send(&drain, &attachment), from_hub.receive());
    sent.unwrap();
    let received = received.unwrap().unwrap();
    assert_eq!((received.message, received.attachment.len()), (ToAgent::Drain {}, 2 << 20));
    let renew = ToHub::Renew { csr: "x".to_owned() };
    to_hub.send(&renew, b"").await.unwrap();
    to_hub.finish().await.unwrap();
    assert_eq!(from_agent.receive().await.unwrap().unwrap().message, renew);
    assert!(from_agent.receive().await.unwrap().is_none(), "an orderly end");
}
