//! The state of one stream: what came and is not read, what was written and is not sent, what either end may still send. Waits for nothing and locks
//! nothing.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::ReadBuf;
use tokio::sync::OwnedSemaphorePermit;

use super::connection::{LONGEST_BODY, Spare};
use super::frame::{FIN, Fault, Head, INITIAL_WINDOW, Kind, RST, SYN};
use super::window::{Traffic, Window};

/// So much may wait in a stream to be sent.
const MOST_UNSENT: usize = 512 << 10;
/// The least room of a body, so that what opens a stream gets into one frame.
const LEAST_BODY: usize = 2 << 10;

/// A stream's state.
#[derive(Debug)]
pub(super) struct State {
    received: VecDeque<Bytes>,
    /// Bytes in `received`.
    unread: usize,
    window: Window,
    /// Nothing more comes.
    ended: bool,
    /// What waits to be sent, in bodies of frames; only the last may still grow.
    unsent: VecDeque<BytesMut>,
    /// Bytes in `unsent`.
    waiting: usize,
    /// What the peer allows us to send besides.
    allowance: usize,
    /// The flag of the first frame: [`SYN`] of a stream that we open, [`ACK`] of one that we accept.
    first: u16,
    /// Nothing more will be written.
    finished: bool,
    finish_sent: bool,
    /// It broke off: the peer reset it, or the tunnel was lost.
    broken: bool,
    /// Nobody holds it any more, or it was aborted.
    dropped: bool,
    /// Whether it stands in the queue of those that have something to send.
    queued: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Who waits for its break.
    watcher: Option<Waker>,
    /// Its places in the limits, until nobody holds it any more.
    slots: Option<Slots>,
}

/// The places that a stream takes in the limits; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slots {
    _tunnel: OwnedSemaphorePermit,
    _process: Option<OwnedSemaphorePermit>,
}

impl Slots {
    pub(super) fn inbound(tunnel: OwnedSemaphorePermit) -> Self {
        Slots {
            _tunnel: tunnel,
            _process: None,
        }
    }

    pub(super) fn outbound(tunnel: OwnedSemaphorePermit, process: OwnedSemaphorePermit) -> Self {
        Slots {
            _tunnel: tunnel,
            _process: Some(process),
        }
    }
}

/// Whom to wake, once nothing is locked.
#[derive(Default)]
#[must_use]
pub(super) struct Wakers([Option<Waker>; 3]);

impl Wakers {
    pub(super) fn wake(self) {
        for waker in self.0.into_iter().flatten() {
            waker.wake();
        }
    }
}

/// What a stream sends next.
pub(super) struct Turn {
    pub(super) head: Head,
    pub(super) body: BytesMut,
    /// It has more, so it queues again.
    pub(super) more: bool,
    /// This was its last.
    pub(super) over: bool,
    pub(super) wakers: Wakers,
}

impl State {
    /// Of a stream that we open, if `first` is [`SYN`], or accept.
    pub(super) fn new(first: u16) -> Self {
        State {
            received: VecDeque::new(),
            unread: 0,
            window: Window::new(Instant::now()),
            ended: false,
            unsent: VecDeque::new(),
            waiting: 0,
            allowance: INITIAL_WINDOW,
            first,
            finished: false,
            finish_sent: false,
            broken: false,
            dropped: false,
            queued: false,
            reader: None,
            writer: None,
            watcher: None,
            slots: None,
        }
    }

    pub(super) fn receive(&mut self, head: Head, body: Bytes) -> Result<bool, Fault> {
        if head.has(RST) {
            self.break_off();
            return Ok(true);
        }
        match head.kind {
            Kind::WindowUpdate => self.allowance = self.allowance.saturating_add(head.length as usize),
            _ if !self.window.take(body.len()) => return Err(Fault("more data than its window allows")),
            _ if self.ended && !body.is_empty() => return Err(Fault("data of a stream after its end")),
            // Who has gone reads nothing; the credit is never given back.
            _ if self.dropped || body.is_empty() => {}
            _ => {
                self.unread += body.len();
                self.received.push_back(body);
            }
        }
        self.ended |= head.has(FIN);
        Ok(self.is_done())
    }

    pub(super) fn break_off(&mut self) {
        self.broken = true;
        self.unsent = VecDeque::new();
        self.waiting = 0;
    }

    fn can_read(&self) -> bool {
        self.unread > 0 || self.ended || self.is_over()
    }

    fn can_write(&self) -> bool {
        self.room() > 0 || self.is_over()
    }

    /// Whether it has something to send and does not queue yet; from now on it does.
    fn queues(&mut self) -> bool {
        !std::mem::replace(&mut self.queued, true)
    }

    pub(super) fn turn(&mut self, id: u32, traffic: &Traffic, headroom: &mut usize) -> Option<Turn> {
        self.queued = false;
        if self.broken {
            return None;
        }
        let (kind, length, flags, body) = self.next(traffic, headroom)?;
        let over = flags & RST != 0 || self.is_done();
        self.queued = !over && self.has_more();
        let head = Head {
            kind,
            flags: flags | std::mem::take(&mut self.first),
            stream: id,
            length: u32::try_from(length).unwrap_or(u32::MAX),
        };
        Some(Turn {
            head,
            body,
            more: self.queued,
            over,
            wakers: Wakers([self.can_write().then(|| self.writer.take()).flatten(), None, None]),
        })
    }

    fn next(&mut self, traffic: &Traffic, headroom: &mut usize) -> Option<(Kind, usize, u16, BytesMut)> {
        let all_is_sent = self.unsent.is_empty() && self.finished == self.finish_sent;
        if self.is_given_up() && all_is_sent {
            // Of a stream that the peer has not heard of there is nothing to reset.
            self.broken = true;
            return (self.first != SYN).then(|| (Kind::Data, 0, RST, BytesMut::new()));
        }
        if self.window.is_due(self.unread) && !self.ended && !self.dropped {
            let granted = self.window.grant(self.unread, traffic, headroom, Instant::now());
            if granted > 0 {
                return Some((Kind::WindowUpdate, granted, 0, BytesMut::new()));
            }
        }
        let body = self.unsent.pop_front().unwrap_or_default();
        let length = body.len();
        self.waiting -= length;
        let last = self.finished && !self.finish_sent && self.unsent.is_empty();
        if last {
            self.finish_sent = true;
        }
        let flags = if last { FIN } else { 0 };
        (length > 0 || last).then_some((Kind::Data, length, flags, body))
    }

    /// Whether its holder left before both ends had finished. The peer hears of it behind all that was written: what it still says nobody reads, and
    /// what it reads is there before the reset.
    fn is_given_up(&self) -> bool {
        self.dropped && !(self.finished && self.ended)
    }

    /// Whether both ends have finished.
    pub(super) fn is_done(&self) -> bool {
        self.finish_sent && self.ended
    }

    /// Whether it broke off, from either side.
    fn is_over(&self) -> bool {
        self.broken || self.dropped
    }

    fn has_more(&self) -> bool {
        !self.unsent.is_empty() || (self.finished && !self.finish_sent) || self.is_given_up()
    }

    fn read(&mut self, buffer: &mut ReadBuf<'_>) {
        while buffer.remaining() > 0 {
            let Some(chunk) = self.received.front_mut() else {
                break;
            };
            let length = chunk.len().min(buffer.remaining());
            buffer.put_slice(&chunk[..length]);
            chunk.advance(length);
            self.unread -= length;
            if chunk.is_empty() {
                self.received.pop_front();
            }
        }
    }

    fn write(&mut self, pieces: &[IoSlice<'_>], spare: &Spare) -> usize {
        let before = self.waiting;
        let mut room = self.room().min(pieces.iter().map(|piece| piece.len()).sum());
        for piece in pieces {
            let mut piece = &piece[..piece.len().min(room)];
            while !piece.is_empty() {
                let body = self.body(room, spare);
                let length = piece.len().min(body.capacity() - body.len());
                body.extend_from_slice(&piece[..length]);
                piece = &piece[length..];
                self.waiting += length;
                room -= length;
            }
        }
        let written = self.waiting - before;
        self.allowance -= written;
        written
    }

    /// The body that the next bytes go into, of which there are so many. With as much room again as waits already, so that many small pieces get
    /// into few frames.
    fn body(&mut self, bytes: usize, spare: &Spare) -> &mut BytesMut {
        let is_full = |body: &BytesMut| body.len() == body.capacity();
        if self.unsent.back().is_none_or(is_full) {
            let body = match bytes.max(self.waiting).max(LEAST_BODY) {
                few if few < LONGEST_BODY => BytesMut::with_capacity(few),
                _ => spare.take(),
            };
            self.unsent.push_back(body);
        }
        let last = self.unsent.len() - 1;
        &mut self.unsent[last]
    }

    fn room(&self) -> usize {
        self.allowance.min(MOST_UNSENT.saturating_sub(self.waiting))
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// What its window has grown by.
    pub(super) fn grown(&self) -> usize {
        self.window.grown()
    }

    /// Whoever waits for what there is now.
    pub(super) fn wakers(&mut self) -> Wakers {
        Wakers([
            self.can_read().then(|| self.reader.take()).flatten(),
            self.can_write().then(|| self.writer.take()).flatten(),
            self.is_over().then(|| self.watcher.take()).flatten(),
        ])
    }

    /// Somebody holds it from now on.
    pub(super) fn hold(&mut self, slots: Slots) {
        self.slots = Some(slots);
    }

    /// Writes as much as there is room for, and does not queue for it; how much that was.
    pub(super) fn stage(&mut self, bytes: &[u8], spare: &Spare) -> usize {
        match self.is_over() || self.finished {
            true => 0,
            false => self.write(&[IoSlice::new(bytes)], spare),
        }
    }

    /// Puts bytes back that were read.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.unread += bytes.len();
            self.received.push_front(bytes);
        }
    }

    /// Whether the peer has finished, and everything is read.
    pub(super) fn is_ended(&self) -> bool {
        self.ended && self.unread == 0
    }

    /// Reads; whether it has to queue after that.
    pub(super) fn poll_read(&mut self, cx: &Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        if self.unread > 0 {
            self.read(buffer);
            return Poll::Ready(Ok(self.grants()));
        }
        match buffer.remaining() {
            0 => Poll::Ready(Ok(false)),
            _ => self.poll_end(cx).map_ok(|()| false),
        }
    }

    /// Takes the next bytes as they came, none at the end; and whether it has to queue after that.
    pub(super) fn poll_chunk(&mut self, cx: &Context<'_>) -> Poll<io::Result<(Bytes, bool)>> {
        if let Some(chunk) = self.received.pop_front() {
            self.unread -= chunk.len();
            return Poll::Ready(Ok((chunk, self.grants())));
        }
        self.poll_end(cx).map_ok(|()| (Bytes::new(), false))
    }

    /// Whether it has to queue to give the peer credit.
    fn grants(&mut self) -> bool {
        !self.broken && !self.ended && self.window.is_due(self.unread) && self.queues()
    }

    /// Where nothing is left to read.
    fn poll_end(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.dropped {
            return Poll::Ready(Err(broken()));
        }
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        if self.broken {
            return Poll::Ready(Err(broken()));
        }
        remember(&mut self.reader, cx);
        Poll::Pending
    }

    /// Ready when it breaks off, from either side.
    pub(super) fn poll_over(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.is_over() {
            return Poll::Ready(());
        }
        remember(&mut self.watcher, cx);
        Poll::Pending
    }

    /// Writes; how many bytes, and whether it has to queue after that.
    pub(super) fn poll_write(
        &mut self,
        cx: &Context<'_>,
        pieces: &[IoSlice<'_>],
        spare: &Spare,
    ) -> Poll<io::Result<(usize, bool)>> {
        if self.is_over() || self.finished {
            return Poll::Ready(Err(broken()));
        }
        if pieces.iter().all(|piece| piece.is_empty()) {
            return Poll::Ready(Ok((0, false)));
        }
        if self.room() == 0 {
            remember(&mut self.writer, cx);
            return Poll::Pending;
        }
        let written = self.write(pieces, spare);
        Poll::Ready(Ok((written, self.queues())))
    }

    /// Sends what waits; whether it has to queue for that.
    pub(super) fn flush(&mut self) -> bool {
        !self.unsent.is_empty() && self.queues()
    }

    /// Ends what is written; whether it has to queue for that.
    pub(super) fn finish(&mut self) -> io::Result<bool> {
        if self.finished {
            return Ok(false);
        }
        if self.broken {
            return Err(broken());
        }
        self.finished = true;
        Ok(self.queues())
    }

    /// Whoever holds it shall let it go: what waits to be read is thrown away, and there is nothing else to come. Whether it has to queue for that.
    pub(super) fn abort(&mut self) -> (bool, impl Sized + use<>) {
        self.dropped = true;
        self.unread = 0;
        let received = std::mem::take(&mut self.received);
        (!self.broken && self.is_given_up() && self.queues(), received)
    }

    /// Nobody holds it any more: whether it has to queue for that, and what is given back.
    pub(super) fn leave(&mut self) -> (bool, impl Sized + use<>) {
        let (queues, received) = self.abort();
        let wakers = [self.reader.take(), self.writer.take(), self.watcher.take()];
        (queues, (received, wakers, self.slots.take()))
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the stream was reset or its tunnel was lost")
}

/// Remembers whom to wake; mostly the same as before.
fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}
