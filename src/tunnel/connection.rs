//! What the driver, the handles and the streams of one tunnel share: which streams there are and which of them have something to send. A lock is held
//! for a few steps at a time, never while anybody waits.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::Role;
use super::frame::{ACK, Fault, HEAD, Head, Kind, RST, SYN};
use super::stream::Stream;
use super::window::Traffic;

/// So many answers to the peer's frames may wait to be sent. A peer that causes more is not served at all.
const MOST_ANSWERS: usize = 4_096;

/// The longest body of a frame: small calls wait behind it.
pub(super) const LONGEST_BODY: usize = 64 << 10;
/// How many bodies are kept for further frames.
const MOST_SPARE: usize = 8;

/// The streams of one tunnel.
#[derive(Debug)]
pub(super) struct Connection {
    role: Role,
    table: Mutex<Table>,
    pub(super) spare: Spare,
}

/// Memory for long bodies, used again while much is sent: given back each time, it would go to the system and come back page by page.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Vec<BytesMut>>);

impl Spare {
    fn lock(&self) -> MutexGuard<'_, Vec<BytesMut>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty body with room for the longest.
    pub(super) fn take(&self) -> BytesMut {
        let kept = self.lock().pop();
        kept.unwrap_or_else(|| BytesMut::with_capacity(LONGEST_BODY))
    }

    /// Keeps a body that was sent.
    pub(super) fn keep(&self, mut body: BytesMut) {
        let mut kept = self.lock();
        if body.capacity() == LONGEST_BODY && kept.len() < MOST_SPARE {
            body.clear();
            kept.push(body);
        }
    }

    /// Nothing is sent at the moment.
    pub(super) fn let_go(&self) {
        *self.lock() = Vec::new();
    }
}

#[derive(Debug)]
struct Table {
    streams: HashMap<u32, Arc<Stream>>,
    /// Streams that have something to send, in turns.
    turns: VecDeque<Arc<Stream>>,
    /// Frames of no stream that is known: signs of life, refusals.
    answers: VecDeque<[u8; HEAD]>,
    next_id: u32,
    headroom: usize,
    traffic: Traffic,
    driver: Option<Waker>,
    /// Nobody holds a handle any more.
    abandoned: bool,
    /// The tunnel has ended.
    closed: bool,
}

/// What came with a frame for the driver to do.
pub(super) enum Received {
    /// Nothing.
    Nothing,
    /// Hand this stream over, or refuse it.
    Stream(Arc<Stream>),
    /// The peer answered a sign of life.
    Answer,
    /// The peer ends the tunnel.
    End,
}

impl Connection {
    pub(super) fn new(role: Role, headroom: usize) -> Self {
        let table = Table {
            streams: HashMap::new(),
            turns: VecDeque::new(),
            answers: VecDeque::new(),
            next_id: match role {
                Role::Agent => 1,
                Role::Hub => 2,
            },
            headroom,
            traffic: Traffic::default(),
            driver: None,
            abandoned: false,
            closed: false,
        };
        Connection {
            role,
            table: Mutex::new(table),
            spare: Spare::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing in here panics half-way.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new stream, of which the peer hears with the first byte; `None` when the tunnel has ended or has no numbers left.
    pub(super) fn open(self: &Arc<Self>) -> Option<Arc<Stream>> {
        let mut table = self.lock();
        if table.closed {
            return None;
        }
        let id = table.next_id;
        table.next_id = id.checked_add(2)?;
        let stream = Arc::new(Stream::new(id, SYN, Arc::clone(self)));
        table.streams.insert(id, Arc::clone(&stream));
        Some(stream)
    }

    /// Puts a stream at the end of the queue.
    pub(super) fn queue(&self, stream: &Arc<Stream>) {
        let mut table = self.lock();
        if table.closed {
            return;
        }
        table.turns.push_back(Arc::clone(stream));
        wake(table);
    }

    /// Nobody will open a stream any more.
    pub(super) fn abandon(&self) {
        let mut table = self.lock();
        table.abandoned = true;
        wake(table);
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    /// The driver is woken when there is something to send; whether there is nothing yet.
    pub(super) fn wait(&self, cx: &Context<'_>) -> bool {
        let mut table = self.lock();
        table.driver = Some(cx.waker().clone());
        !table.has_frames()
    }

    pub(super) fn has_frames(&self) -> bool {
        self.lock().has_frames()
    }

    /// The next frame to send.
    pub(super) fn next(&self) -> Option<([u8; HEAD], BytesMut)> {
        let mut table = self.lock();
        if let Some(answer) = table.answers.pop_front() {
            return Some((answer, BytesMut::new()));
        }
        loop {
            let stream = table.turns.pop_front()?;
            let traffic = table.traffic;
            let Some(turn) = stream.turn(&traffic, &mut table.headroom) else {
                // One that was given up before the peer heard of it is still known here.
                if stream.is_broken() {
                    table.forget(stream.id);
                }
                continue;
            };
            if turn.over {
                table.forget(stream.id);
            }
            if !turn.body.is_empty() {
                table.traffic.carries(stream.id, Instant::now());
            }
            if turn.more {
                table.turns.push_back(stream);
            }
            drop(table);
            turn.wakers.wake();
            return Some((turn.head.encode(), turn.body));
        }
    }

    /// Takes a frame of the peer in.
    pub(super) fn receive(self: &Arc<Self>, head: Head, body: Bytes) -> Result<Received, Fault> {
        match head.kind {
            Kind::Ping if head.has(SYN) => self.answer(Head { flags: ACK, ..head })?,
            Kind::Ping => return Ok(Received::Answer),
            Kind::GoAway => return Ok(Received::End),
            Kind::Data | Kind::WindowUpdate => return self.receive_stream(head, body),
        }
        Ok(Received::Nothing)
    }

    fn receive_stream(self: &Arc<Self>, head: Head, body: Bytes) -> Result<Received, Fault> {
        let mut table = self.lock();
        if !body.is_empty() {
            table.traffic.carries(head.stream, Instant::now());
        }
        let known = table.streams.get(&head.stream).cloned();
        let stream = match (known, head.has(SYN)) {
            (Some(stream), false) => stream,
            // Its end here is on its way to the peer.
            (None, false) => return Ok(Received::Nothing),
            (Some(_), true) => return Err(Fault("the begin of a stream that has begun")),
            (None, true) if self.is_own(head.stream) => return Err(Fault("the begin of a stream by the wrong end")),
            (None, true) => {
                let stream = Arc::new(Stream::new(head.stream, ACK, Arc::clone(self)));
                table.streams.insert(head.stream, Arc::clone(&stream));
                stream
            }
        };
        drop(table);
        if stream.receive(head, body)? {
            self.forget(stream.id);
        }
        Ok(match head.has(SYN) {
            true => Received::Stream(stream),
            false => Received::Nothing,
        })
    }

    /// Refuses a stream that the peer has just opened.
    pub(super) fn refuse(&self, stream: &Stream) -> Result<(), Fault> {
        self.forget(stream.id);
        self.answer(Head {
            kind: Kind::Data,
            flags: RST,
            stream: stream.id,
            length: 0,
        })
    }

    /// What still comes of this stream does not matter.
    pub(super) fn forget(&self, id: u32) {
        self.lock().forget(id);
    }

    /// Asks for a sign of life.
    pub(super) fn ask(&self) -> Result<(), Fault> {
        self.answer(Head {
            kind: Kind::Ping,
            flags: SYN,
            stream: 0,
            length: 0,
        })
    }

    /// The peer answered after this time.
    pub(super) fn answered(&self, after: Duration) {
        self.lock().traffic.answered(after);
    }

    fn answer(&self, head: Head) -> Result<(), Fault> {
        let mut table = self.lock();
        if table.answers.len() >= MOST_ANSWERS {
            return Err(Fault("thousands of frames that want an answer, and it reads none"));
        }
        table.answers.push_back(head.encode());
        Ok(())
    }

    /// Breaks all streams off; there will be no others.
    pub(super) fn close(&self) {
        let mut table = self.lock();
        table.closed = true;
        table.driver = None;
        let streams = std::mem::take(&mut table.streams);
        let turns = std::mem::take(&mut table.turns);
        drop(table);
        for stream in streams.values().chain(&turns) {
            stream.lose();
        }
    }

    fn is_own(&self, id: u32) -> bool {
        match self.role {
            Role::Agent => !id.is_multiple_of(2),
            Role::Hub => id.is_multiple_of(2),
        }
    }
}

impl Table {
    fn has_frames(&self) -> bool {
        !self.turns.is_empty() || !self.answers.is_empty()
    }

    fn forget(&mut self, id: u32) {
        if let Some(stream) = self.streams.remove(&id) {
            self.headroom += stream.grown();
        }
    }
}

/// Wakes the driver, outside of the lock.
fn wake(mut table: MutexGuard<'_, Table>) {
    let driver = table.driver.take();
    drop(table);
    if let Some(driver) = driver {
        driver.wake();
    }
}
