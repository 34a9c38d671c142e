//! A TCP relay between two programs under test that can hold back every byte, or cut what is connected and refuse what comes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// Bytes flow.
    Open,
    /// Connections stay and nothing arrives: what a lost network looks like from both ends.
    Held,
    /// Connections are closed, new ones are closed at once.
    Cut,
    /// The relay is gone.
    Ended,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    accepted: usize,
    sockets: Vec<TcpStream>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Listens on a port of its own and passes everything on to another port of this machine.
#[derive(Debug)]
pub(crate) struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

impl Relay {
    /// Starts a relay to 127.0.0.1:`target`.
    pub(crate) fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port can be bound");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let state = State {
            mode: Mode::Open,
            accepted: 0,
            sockets: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let of_thread = shared.clone();
        std::thread::spawn(move || accept(&listener, target, &of_thread));
        Relay { port, shared }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many connections it has accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.lock().accepted
    }

    /// Lets bytes flow again.
    pub(crate) fn open(&self) {
        self.set(Mode::Open);
    }

    /// Holds back every byte; both ends still think that they are connected.
    pub(crate) fn hold(&self) {
        self.set(Mode::Held);
    }

    /// Closes every connection and refuses new ones.
    pub(crate) fn cut(&self) {
        self.set(Mode::Cut);
    }

    fn set(&self, mode: Mode) {
        let mut state = self.shared.lock();
        state.mode = mode;
        if matches!(mode, Mode::Cut | Mode::Ended) {
            for socket in state.sockets.drain(..) {
                // It may be closed already.
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.set(Mode::Ended);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the lock")
    }

    /// Waits while bytes are held back; says whether they may flow now.
    fn may_pass(&self) -> bool {
        let state = self.changed.wait_while(self.lock(), |state| state.mode == Mode::Held);
        state.expect("no thread panics while it holds the lock").mode == Mode::Open
    }
}

fn accept(listener: &TcpListener, target: u16, shared: &Arc<Shared>) {
    for client in listener.incoming().flatten() {
        let mut state = shared.lock();
        match state.mode {
            Mode::Ended => return,
            Mode::Cut => continue,
            Mode::Open | Mode::Held => {}
        }
        state.accepted += 1;
        let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else {
            continue;
        };
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
                continue;
            };
            let shared = shared.clone();
            std::thread::spawn(move || pump(from, to, &shared));
        }
        state.sockets.extend([client, server]);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut buffer = [0u8; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer) {
        if !shared.may_pass() || length == 0 || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
