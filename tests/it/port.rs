//! The hub's port with real sockets and mutual TLS: who comes in, agents' tunnels, and users' requests through them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use branchline::core::access::ADMINS;
use branchline::hub::ca::DEFAULT_LIFETIME;
use branchline::hub::listener::PortSettings;
use branchline::tunnel::dial::{DialError, connect};
use branchline::tunnel::{KeepAlive, TunnelSettings};
use branchline::wire::control::ToAgent;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::port::{
    CLUSTER, Hub, OFFLINE, OTHER, PATIENCE, ROBOT, account_token, api_server, direct, introduce, request, status, text, until,
};

#[tokio::test]
async fn a_request_reaches_the_cluster_as_its_user() {
    let (hub, (api, _events)) = (Hub::start().await, api_server().await);
    let _agent = hub.join(CLUSTER, api).await;
    let mut request = request(&direct(CLUSTER, "/api/v1/pods?limit=5"));
    for (name, value) in [
        ("authorization", "Bearer x"),
        ("x-remote-user", "root"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-mine", "kept"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let mut connection = hub.http(hub.user("alice", ADMINS)).await;
    let response = connection.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let seen: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(
        (seen["path"].as_str(), seen["query"].as_str()),
        (Some("/api/v1/pods"), Some("limit=5"))
    );
    let value = |name: &str| {
        let mut headers = seen["headers"].as_array().unwrap().iter();
        headers
            .find(|header| header[0] == name)
            .map(|header| header[1].as_str().unwrap().to_owned())
    };
    assert_eq!(value("impersonate-user").as_deref(), Some("alice"));
    assert_eq!(value("impersonate-group").as_deref(), Some(ADMINS));
    assert_eq!(value("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(value("x-mine").as_deref(), Some("kept"));
    assert_eq!((value("authorization"), value("x-remote-user")), (None, None));
}

#[tokio::test]
async fn whoever_may_not_hears_why() {
    let (hub, elsewhere, (api, _events)) = (Hub::start().await, Hub::start().await, api_server().await);
    let _agent = hub.join(CLUSTER, api).await;
    let expired = hub
        .authority
        .issue_user(
            "alice",
            ADMINS,
            SystemTime::now() - Duration::from_secs(7200),
            Duration::from_secs(3600),
        )
        .unwrap();
    let expired = hub.client(Some((expired.certificate_pem, expired.key_pem)));
    let foreign = elsewhere
        .authority
        .issue_user("alice", ADMINS, SystemTime::now(), DEFAULT_LIFETIME)
        .unwrap();
    let foreign = hub.client(Some((foreign.certificate_pem, foreign.key_pem)));
    for (client, code, reason) in [
        (hub.client(None), 401, "no client certificate"),
        (expired, 401, "has expired"),
        (foreign, 401, "not from this hub's CA"),
        (
            hub.user("bob", "dev"),
            403,
            "User \"bob\" cannot get resource \"sockets/proxy\"",
        ),
        (hub.agent(CLUSTER, false), 403, "its own tunnel and nothing else"),
    ] {
        let (got, message) = status(hub.get(client, &direct(CLUSTER, "/api/v1/pods")).await).await;
        assert_eq!(got, code, "{message}");
        assert!(message.contains(reason), "{message}");
    }
}

#[tokio::test]
async fn what_would_not_go_on_is_refused() {
    let (hub, (api, _events)) = (Hub::start().await, api_server().await);
    let _agent = hub.join(CLUSTER, api).await;
    let mut asked = request(&direct(CLUSTER, "/api"));
    for (name, value) in [("impersonate-user", "bob"), ("impersonate-uid", "7")] {
        asked.headers_mut().insert(name, value.parse().unwrap());
    }
    let mut connection = hub.http(hub.user("alice", ADMINS)).await;
    let (code, message) = status(connection.send_request(asked).await.unwrap()).await;
    assert!(code == 400 && message.contains("--as-uid"), "{code} {message}");
}

#[tokio::test]
async fn clusters_that_cannot_answer_are_told_apart() {
    let hub = Hub::start().await;
    let admin = hub.user("alice", ADMINS);
    let (code, message) = status(hub.get(admin.clone(), &direct(OTHER, "/api")).await).await;
    assert!(code == 404 && message.contains("edge-1"), "{code} {message}");
    let (code, message) = status(hub.get(admin.clone(), &direct(OFFLINE, "/api")).await).await;
    assert!(
        code == 503 && message.contains("\"edge-2\" is offline since noon"),
        "{code} {message}"
    );
    for trick in ["//etc", "/%2e%2e/x", "/../x", "/a%2fb"] {
        let (code, message) = status(hub.get(admin.clone(), &direct(CLUSTER, trick)).await).await;
        assert_eq!(code, 400, "{message}");
    }
    let absolute = format!("https://localhost{}", direct(CLUSTER, "/api"));
    assert_eq!(status(hub.get(admin, &absolute).await).await.0, 400);
}

#[tokio::test]
async fn a_watch_comes_event_by_event_and_ends_with_its_reader() {
    let (hub, (api, events)) = (Hub::start().await, api_server().await);
    let agent = hub.join(CLUSTER, api).await;
    let response = hub.admin_get("/watch?watch=true").await;
    let mut body = response.into_body();
    for event in ["{\"type\":\"ADDED\"}\n", "{\"type\":\"MODIFIED\"}\n"] {
        events.send(event).unwrap();
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event, "one event is one chunk");
    }
    assert_eq!(agent.handle.open_streams(), 2, "the control stream and the watch");
    drop(body);
    until("the stream of a watch whose reader left is free", || {
        agent.handle.open_streams() == 1
    })
    .await;
}

#[tokio::test]
async fn http2_users_share_a_connection_and_no_stream() {
    let (hub, (api, events)) = (Hub::start().await, api_server().await);
    let agent = hub.join(CLUSTER, api).await;
    let mut connection = hub.http2(hub.user("alice", ADMINS)).await;
    let url = |path: &str| format!("https://localhost{}", direct(CLUSTER, path));
    let send = |path: &str| Request::get(url(path)).body(Full::<Bytes>::default()).unwrap();
    let mut watch = connection.send_request(send("/watch?watch=1")).await.unwrap().into_body();
    let answer = connection.send_request(send("/api")).await.unwrap();
    let seen: Value = serde_json::from_str(&text(answer).await).unwrap();
    assert_eq!(seen["path"], "/api");
    events.send("an event\n").unwrap();
    let frame = tokio::time::timeout(PATIENCE, watch.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "an event\n");
    drop(watch);
    until("the watch's stream is free", || agent.handle.open_streams() == 1).await;
}

#[tokio::test]
async fn an_answer_to_head_has_no_body() {
    let (hub, (api, _events)) = (Hub::start().await, api_server().await);
    let _agent = hub.join(CLUSTER, api).await;
    let admin = hub.user("alice", ADMINS);
    for (path, least) in [("/of-the-hub", 2), (&direct(CLUSTER, "/api"), 10)] {
        let mut head = request(path);
        *head.method_mut() = http::Method::HEAD;
        let old = hub.http(admin.clone()).await.send_request(head).await.unwrap();
        let head = Request::head(format!("https://localhost{path}")).body(Full::<Bytes>::default());
        let new = hub.http2(admin.clone()).await.send_request(head.unwrap()).await.unwrap();
        for answer in [old, new] {
            let length: usize = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
            assert!(answer.status() == 200 && length >= least, "{path}: {answer:?}");
            assert_eq!(text(answer).await, "");
        }
    }
}

#[tokio::test]
async fn an_upgrade_is_handed_over_both_ways() {
    let (hub, (api, _events)) = (Hub::start().await, api_server().await);
    let agent = hub.join(CLUSTER, api).await;
    let mut connection = hub.http(hub.user("alice", ADMINS)).await;
    let mut exec = request(&direct(CLUSTER, "/exec"));
    exec.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    exec.headers_mut().insert("upgrade", "SPDY/3.1".parse().unwrap());
    let response = connection.send_request(exec).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
    let mut handed_over = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    for line in ["first", "second"] {
        handed_over.write_all(line.as_bytes()).await.unwrap();
        let mut echoed = vec![0; line.len()];
        tokio::time::timeout(PATIENCE, handed_over.read_exact(&mut echoed))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(echoed, line.as_bytes());
    }
    handed_over.shutdown().await.unwrap();
    let mut rest = Vec::new();
    handed_over.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    until("the stream of an upgrade that ended is free", || {
        agent.handle.open_streams() == 1
    })
    .await;
}

/// Opens `/exec`, which says what it hears.
async fn echo(hub: &Hub, user: &str) -> TokioIo<hyper::upgrade::Upgraded> {
    let mut connection = hub.http(hub.user(user, "dev")).await;
    let mut exec = request(&direct(CLUSTER, "/exec"));
    exec.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    exec.headers_mut().insert("upgrade", "SPDY/3.1".parse().unwrap());
    let response = connection.send_request(exec).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    TokioIo::new(hyper::upgrade::on(response).await.unwrap())
}

/// Writes until nothing more is taken, which is so once everything on the way is full.
async fn fill(writer: &mut (impl AsyncWrite + Unpin)) {
    let piece = [0; 64 << 10];
    while tokio::time::timeout(QUICK, writer.write(&piece))
        .await
        .is_ok_and(|written| written.is_ok())
    {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_taken_out_is_cut_though_it_reads_nothing() {
    let (hub, (api, events)) = (Hub::start().await, api_server().await);
    let agent = hub.join(CLUSTER, api).await;
    hub.let_in(&["bob", "zoe"]);
    // One says nothing, one sends and reads nothing, one follows and reads nothing, one is still answered.
    let idle = echo(&hub, "bob").await;
    let mut deaf = echo(&hub, "bob").await;
    fill(&mut deaf).await;
    let watch = hub.get(hub.user("bob", "dev"), &direct(CLUSTER, "/watch?watch=true")).await;
    let long: &str = "an event ".repeat(1 << 20).leak();
    (0..8).for_each(|_| events.send(long).unwrap());
    let mut waiting = hub.http(hub.user("bob", "dev")).await;
    let waiting = tokio::spawn(async move { waiting.send_request(request(&direct(CLUSTER, "/hang"))).await.unwrap() });
    let mut stays = echo(&hub, "zoe").await;
    until("all of them go on", || agent.handle.open_streams() == 6).await;
    hub.let_in(&["zoe"]);
    until("the streams of bob are free", || agent.handle.open_streams() == 2).await;
    let (code, message) = status(waiting.await.unwrap()).await;
    assert!(code == 403 && message.contains("ended while it waited"), "{code} {message}");
    let mut echoed = [0; 4];
    stays.write_all(b"zoe!").await.unwrap();
    tokio::time::timeout(PATIENCE, stays.read_exact(&mut echoed))
        .await
        .unwrap()
        .unwrap();
    for mut cut in [idle, deaf] {
        let read = async { while cut.read(&mut [0; 64 << 10]).await.is_ok_and(|length| length > 0) {} };
        tokio::time::timeout(PATIENCE, read).await.expect("the connection is closed");
    }
    drop(watch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_hangs_keeps_nobody_of_another_one_waiting() {
    let (hub, (api, _events)) = (Hub::start().await, api_server().await);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _agents = (
        hub.join(CLUSTER, api).await,
        hub.join(OTHER, silent.local_addr().unwrap()).await,
    );
    hub.let_in(&[&format!("system:serviceaccount:{ROBOT}")]);
    let ask = async |cluster: &str, account: &str| {
        let mut asked = request(&direct(cluster, "/api"));
        let bearer = format!("Bearer {}", account_token(account)).parse().unwrap();
        asked.headers_mut().insert("authorization", bearer);
        hub.http(hub.client(None)).await.send_request(asked).await.unwrap()
    };
    let made_up: Vec<String> = (0..40).map(|number| format!("a:{number}")).collect();
    let mut hanging: Vec<_> = made_up.iter().map(|account| Box::pin(ask(OTHER, account))).collect();
    for _ in 0..10 {
        for asked in &mut hanging {
            assert!(futures::poll!(asked).is_pending());
        }
        tokio::time::sleep(QUICK / 10).await;
    }
    assert_eq!(ask(CLUSTER, ROBOT).await.status(), StatusCode::OK);
    // What is said of a token that nobody knows does not tell which clusters there are.
    let (code, unknown) = status(ask(CLUSTER, "a:unknown").await).await;
    assert_eq!((code, &unknown), (401, &status(ask(OFFLINE, "a:unknown").await).await.1));
    assert!(unknown.contains("no cluster vouches"), "{unknown}");
}

#[tokio::test]
async fn an_upgrade_that_is_refused_closes_both_sides() {
    let (hub, (api, _events)) = (Hub::start().await, api_server().await);
    let agent = hub.join(CLUSTER, api).await;
    let mut connection = hub.http(hub.user("alice", ADMINS)).await;
    let mut exec = request(&direct(CLUSTER, "/forbidden"));
    exec.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    exec.headers_mut().insert("upgrade", "SPDY/3.1".parse().unwrap());
    let response = connection.send_request(exec).await.unwrap();
    assert_eq!((response.status().as_u16(), text(response).await.as_str()), (403, "no"));
    assert!(connection.ready().await.is_err(), "the caller's connection is closed");
    until("the stream is free", || agent.handle.open_streams() == 1).await;
}

#[tokio::test]
async fn too_many_requests_are_an_answer() {
    let hub = Hub::with(TunnelSettings {
        usable_streams: 2,
        ..TunnelSettings::hub()
    })
    .await;
    let (api, _events) = api_server().await;
    let agent = hub.join(CLUSTER, api).await;
    let admin = hub.user("alice", ADMINS);
    let mut hanging = Vec::new();
    for _ in 0..2 {
        let mut connection = hub.http(admin.clone()).await;
        hanging.push(tokio::spawn(async move {
            connection.send_request(request(&direct(CLUSTER, "/hang"))).await.map(drop)
        }));
    }
    until("both requests hang", || agent.handle.open_streams() == 3).await;
    let response = hub.get(admin.clone(), &direct(CLUSTER, "/api")).await;
    assert_eq!(response.headers()["retry-after"], "1");
    let (code, message) = status(response).await;
    assert!(code == 429 && message.contains("limit"), "{message}");
    hanging.drain(..).for_each(|request| request.abort());
    until("callers that left free their streams", || agent.handle.open_streams() == 1).await;
    assert_eq!(hub.get(admin, &direct(CLUSTER, "/api")).await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_at_once_get_as_many_streams_as_there_are() {
    const USABLE: usize = 1_000;
    let patient = TunnelSettings { ..TunnelSettings::hub() };
    let (hub, (api, _events)) = (Hub::with(patient).await, api_server().await);
    let agent = hub.join(CLUSTER, api).await;
    let admin = hub.user("alice", ADMINS);
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let connection = hub.http2(admin.clone()).await;
        for _ in 0..250 {
            let mut connection = connection.clone();
            let url = format!("https://localhost{}", direct(CLUSTER, "/hang?watch=true"));
            let request = Request::get(url).body(Full::<Bytes>::default()).unwrap();
            requests.spawn(async move { connection.send_request(request).await.unwrap().status().as_u16() });
        }
    }
    for _ in 0..10_000 - USABLE {
        let answered = tokio::time::timeout(PATIENCE, requests.join_next()).await;
        assert_eq!(answered.expect("one more is answered").unwrap().unwrap(), 429);
    }
    until("the control stream and as many requests as may be are open", || {
        agent.handle.open_streams() == USABLE + 1
    })
    .await;
    let (code, message) = status(hub.get(admin.clone(), &direct(CLUSTER, "/api")).await).await;
    assert!(code == 429 && message.contains("limit"), "{message}");
    requests.abort_all();
    while requests.join_next().await.is_some() {}
    until("their streams are free", || agent.handle.open_streams() == 1).await;
    assert_eq!(hub.get(admin, &direct(CLUSTER, "/api")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_upload_that_stands_still_stops_no_other_of_its_connection() {
    let (hub, (api, _events)) = (Hub::start().await, api_server().await);
    let agent = hub.join(CLUSTER, api).await;
    let connection = hub.http2(hub.user("alice", ADMINS)).await;
    // More than sockets and windows on the way hold.
    let content = Bytes::from(vec![1u8; 32 << 20]);
    let upload = |path: &str| {
        let url = format!("https://localhost{}", direct(CLUSTER, path));
        let request = Request::post(url).body(Full::new(content.clone())).unwrap();
        let mut connection = connection.clone();
        async move { connection.send_request(request).await.unwrap() }
    };
    let stalled: Vec<_> = (0..8).map(|_| tokio::spawn(upload("/hang?watch=true"))).collect();
    until("all of them are under way", || agent.handle.open_streams() == 9).await;
    let answer = tokio::time::timeout(PATIENCE, upload("/upload")).await.unwrap();
    assert_eq!(text(answer).await, content.len().to_string());
    stalled.into_iter().for_each(|upload| upload.abort());
}

/// Long enough for this process to answer while others build something.
const QUICK: Duration = Duration::from_secs(1);

/// A hub that is quick to give up on those who do not answer.
async fn impatient() -> Hub {
    let tunnels = TunnelSettings {
        keep_alive: KeepAlive {
            ping_every: QUICK / 2,
            dead_after: 4 * QUICK,
        },
        ..TunnelSettings::hub()
    };
    let port = PortSettings {
        handshake_timeout: QUICK,
        header_timeout: QUICK,
        http2_ping: QUICK,
        ..PortSettings::default()
    };
    Hub::with_port(tunnels, port).await
}

#[tokio::test]
async fn a_watch_outlives_every_timeout_while_nothing_happens() {
    let (hub, (api, events)) = (impatient().await, api_server().await);
    let _agent = hub.join(CLUSTER, api).await;
    let admin = hub.user("alice", ADMINS);
    let mut older = hub
        .get(admin.clone(), &direct(CLUSTER, "/watch?watch=true"))
        .await
        .into_body();
    let url = format!("https://localhost{}", direct(CLUSTER, "/watch?watch=true"));
    let newer = Request::get(url).body(Full::<Bytes>::default()).unwrap();
    let mut connection = hub.http2(admin).await;
    let mut newer = connection.send_request(newer).await.unwrap().into_body();
    tokio::time::sleep(6 * QUICK).await;
    for event in ["one", "two"] {
        events.send(event).unwrap();
    }
    // Each event goes to one of them.
    let frames = async { (older.frame().await.unwrap().unwrap(), newer.frame().await.unwrap().unwrap()) };
    let (older, newer) = tokio::time::timeout(PATIENCE, frames).await.unwrap();
    let mut seen = [older.into_data().unwrap(), newer.into_data().unwrap()];
    seen.sort_unstable();
    assert_eq!(seen, ["one", "two"]);
}

#[tokio::test]
async fn whoever_says_too_little_is_cut_and_holds_nobody_up() {
    let (hub, (api, _events)) = (impatient().await, api_server().await);
    let agent = hub.join(CLUSTER, api).await;
    let admin = hub.user("alice", ADMINS);
    let request = direct(CLUSTER, "/api");
    let slow = [
        String::new(),
        "P".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM".to_owned(),
        format!("GET {request} HTTP/1.1\r\nHost: hub\r\n"),
        format!("GET {request} HTTP/1.1\r\nHost: hub\r\n\r\n"),
    ];
    let mut held = Vec::new();
    for begin in slow {
        for protocol in ["h2", "http/1.1"] {
            let mut config = Arc::unwrap_or_clone(admin.clone());
            config.alpn_protocols = vec![protocol.into()];
            let stream = connect(&hub.hub_address(), Arc::new(config)).await.unwrap();
            held.push((begin.clone(), tokio::spawn(drip(stream, begin.clone()))));
        }
    }
    let mut mute = TcpStream::connect(hub.address).await.unwrap();
    assert_eq!(hub.admin_get("/api").await.status(), StatusCode::OK);
    for (begin, ended) in held {
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        assert!(ended.is_ok(), "it is still served after {begin:?}");
    }
    tokio::time::timeout(PATIENCE, mute.read_to_end(&mut Vec::new()))
        .await
        .expect("it is still waited for")
        .ok();
    assert_eq!(hub.admin_get("/api").await.status(), StatusCode::OK);
    until("their streams are free", || agent.handle.open_streams() == 1).await;
}

/// Says the beginning, then a byte of a header now and then, until the connection ends.
async fn drip(stream: impl AsyncRead + AsyncWrite, begin: String) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let talks = async {
        writer.write_all(begin.as_bytes()).await?;
        // A request that is whole is followed by silence; an unfinished one by more of it.
        while begin.ends_with("hub\r\n") {
            writer.write_all(b"x").await?;
            writer.flush().await?;
            tokio::time::sleep(QUICK / 10).await;
        }
        writer.flush().await?;
        std::future::pending::<std::io::Result<()>>().await
    };
    let mut answer = Vec::new();
    tokio::select! {
        _ = talks => {}
        _ = reader.read_to_end(&mut answer) => {}
    }
}

#[tokio::test]
async fn who_is_refused_before_all_is_said_still_hears_why() {
    let (hub, (api, _events)) = (Hub::start().await, api_server().await);
    let _agent = hub.join(CLUSTER, api).await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: hub\r\nContent-Length: {}\r\n\r\n",
        direct(CLUSTER, "/upload"),
        6 << 20
    );
    for _ in 0..5 {
        let mut stream = connect(&hub.hub_address(), hub.user("bob", "dev")).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..6 {
            let said = stream.write_all(&[1; 1 << 20]).await;
            said.expect("the connection is not reset while the client still talks");
        }
        let mut answer = String::new();
        // It ends in TLS before it ends.
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
}

#[tokio::test]
async fn a_large_upload_is_passed_on_as_it_comes() {
    let (hub, (api, _events)) = (Hub::start().await, api_server().await);
    let _agent = hub.join(CLUSTER, api).await;
    let mut connection = hub.http(hub.user("alice", ADMINS)).await;
    let body = Full::new(Bytes::from(vec![1u8; 32 << 20]));
    let upload = Request::post(direct(CLUSTER, "/upload"))
        .header("host", "hub")
        .body(body)
        .unwrap();
    let response = connection.send_request(upload).await.unwrap();
    assert_eq!(text(response).await, (32 << 20).to_string());
}

#[tokio::test]
async fn a_request_whose_tunnel_breaks_is_told() {
    let (hub, (api, _events)) = (Hub::start().await, api_server().await);
    let agent = hub.join(CLUSTER, api).await;
    let mut connection = hub.http(hub.user("alice", ADMINS)).await;
    let hanging = tokio::spawn(async move { connection.send_request(request(&direct(CLUSTER, "/hang"))).await.unwrap() });
    until("the request hangs", || agent.handle.open_streams() == 2).await;
    agent.handle.close().await;
    let (code, message) = status(hanging.await.unwrap()).await;
    assert!(code == 502 && message.contains(CLUSTER), "{message}");
}

#[tokio::test]
async fn tunnels_are_for_their_own_agents() {
    let (hub, (api, _events)) = (Hub::start().await, api_server().await);
    let elsewhere = Hub::start().await;
    let _agent = hub.join(CLUSTER, api).await;
    let foreign = hub.client_of(&elsewhere, CLUSTER);
    for (cluster, credential, code, reason) in [
        (
            OTHER,
            hub.agent(CLUSTER, true),
            403,
            "an agent can only connect its own cluster",
        ),
        (CLUSTER, hub.agent(CLUSTER, false), 403, "replace-key"),
        (CLUSTER, hub.client(None), 401, "has to register"),
        (CLUSTER, hub.user("alice", ADMINS), 403, "is no agent"),
        (CLUSTER, foreign, 401, "not from this hub's CA"),
    ] {
        match hub.dial(cluster, credential).await.unwrap_err() {
            DialError::Refused { status, message, .. } => {
                assert_eq!(status.as_u16(), code, "{message}");
                assert!(message.contains(reason), "{message}");
            }
            other => panic!("{other}"),
        }
    }
    let wrong_ca = hub.dial(CLUSTER, elsewhere.client(None)).await;
    let error = wrong_ca.unwrap_err().to_string();
    assert!(error.contains("another CA") && error.contains("--ca-hash"), "{error}");
}

#[tokio::test]
async fn clocks_that_are_off_by_a_day_are_named() {
    let hub = Hub::start().await;
    let day = Duration::from_secs(24 * 3600);
    let early = hub.dial(CLUSTER, hub.client_at(SystemTime::now() - day)).await;
    let error = early.unwrap_err().to_string();
    assert!(error.contains("not valid yet") && error.contains("clock"), "{error}");
    let late = hub.dial(CLUSTER, hub.client_at(SystemTime::now() + 200 * day)).await;
    let error = late.unwrap_err().to_string();
    assert!(error.contains("has expired") && error.contains("clock"), "{error}");
}

#[tokio::test]
async fn an_agent_that_says_it_is_another_is_refused_with_a_reason() {
    let (hub, (api, _events)) = (Hub::start().await, api_server().await);
    let tunnel = hub.dial(CLUSTER, hub.agent(CLUSTER, true)).await.unwrap();
    let mut agent = introduce(tunnel, OTHER, api).await;
    let refusal = agent.receiver.receive().await.unwrap().unwrap().message;
    let ToAgent::Refused { message, .. } = refusal else {
        panic!("{refusal:?}")
    };
    assert!(message.contains(OTHER) && message.contains(CLUSTER), "{message}");
    tokio::time::timeout(PATIENCE, agent.handle.closed().cancelled())
        .await
        .unwrap();
}

#[tokio::test]
async fn garbage_on_the_port_disturbs_nobody() {
    let (hub, (api, _events)) = (Hub::start().await, api_server().await);
    let _agent = hub.join(CLUSTER, api).await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        &[0x16, 3, 1, 0xff, 0xff, 1],
        b"",
    ] {
        let mut socket = TcpStream::connect(hub.address).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        socket.shutdown().await.unwrap();
        let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut Vec::new()))
            .await
            .unwrap();
    }
    assert_eq!(hub.admin_get("/api").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_port_drains_and_ends() {
    let (hub, (api, _events)) = (Hub::start().await, api_server().await);
    let agent = hub.join(CLUSTER, api).await;
    let mut idle = hub.http(hub.user("alice", ADMINS)).await;
    assert_eq!(idle.send_request(request("/healthz")).await.unwrap().status(), StatusCode::OK);
    let mut busy = hub.http(hub.user("alice", ADMINS)).await;
    let hanging = tokio::spawn(async move { busy.send_request(request(&direct(CLUSTER, "/hang"))).await.is_err() });
    until("a request hangs", || agent.handle.open_streams() == 2).await;
    hub.stop.cancel();
    tokio::time::timeout(PATIENCE, hub.served).await.unwrap().unwrap();
    assert!(hanging.await.unwrap(), "what did not end in time was cut");
    assert!(TcpStream::connect(hub.address).await.is_err());
}
