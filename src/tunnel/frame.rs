//! Frames of the multiplexer: yamux, version 0 (<https://github.com/hashicorp/yamux/blob/master/spec.md>). Pure; knows no stream's state.

/// Bytes of a frame's head. Only data frames have a body.
pub(super) const HEAD: usize = 12;
/// What every stream may have in flight from its beginning, fixed by the specification.
pub(super) const INITIAL_WINDOW: usize = 256 << 10;

const VERSION: u8 = 0;

/// What a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Bytes of a stream; `length` of them follow.
    Data,
    /// `length` more bytes may come on a stream.
    WindowUpdate,
    /// A sign of life with the value `length`, asked for with [`SYN`] and answered with [`ACK`].
    Ping,
    /// The tunnel ends.
    GoAway,
}

/// Begins a stream.
pub(super) const SYN: u16 = 1;
/// Accepts a stream.
pub(super) const ACK: u16 = 2;
/// Nothing more comes on a stream.
pub(super) const FIN: u16 = 4;
/// A stream is over at once, in both directions.
pub(super) const RST: u16 = 8;

/// A frame's head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) flags: u16,
    /// Zero for the tunnel itself. The agent's streams have odd numbers, the hub's even ones.
    pub(super) stream: u32,
    pub(super) length: u32,
}

/// Why a peer cannot be understood. The tunnel ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the peer broke the multiplexer's rules: {0}")]
pub(super) struct Fault(pub(super) &'static str);

impl Head {
    /// The tunnel ends.
    pub(super) const GOODBYE: Head = Head {
        kind: Kind::GoAway,
        flags: 0,
        stream: 0,
        length: 0,
    };

    pub(super) fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn encode(self) -> [u8; HEAD] {
        let kind = match self.kind {
            Kind::Data => 0,
            Kind::WindowUpdate => 1,
            Kind::Ping => 2,
            Kind::GoAway => 3,
        };
        let [a, b] = self.flags.to_be_bytes();
        let [c, d, e, f] = self.stream.to_be_bytes();
        let [g, h, i, j] = self.length.to_be_bytes();
        [VERSION, kind, a, b, c, d, e, f, g, h, i, j]
    }

    pub(super) fn decode(bytes: [u8; HEAD]) -> Result<Self, Fault> {
        let [version, kind, a, b, c, d, e, f, g, h, i, j] = bytes;
        if version != VERSION {
            return Err(Fault("a frame of another version"));
        }
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::WindowUpdate,
            2 => Kind::Ping,
            3 => Kind::GoAway,
            _ => return Err(Fault("a frame of an unknown kind")),
        };
        let head = Head {
            kind,
            flags: u16::from_be_bytes([a, b]),
            stream: u32::from_be_bytes([c, d, e, f]),
            length: u32::from_be_bytes([g, h, i, j]),
        };
        match (kind, head.stream) {
            (Kind::Data | Kind::WindowUpdate, 0) => Err(Fault("data of no stream")),
            (Kind::Ping | Kind::GoAway, 1..) => Err(Fault("a sign of life of a stream")),
            _ => Ok(head),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heads_are_those_of_the_specification() {
        let head = Head {
            kind: Kind::WindowUpdate,
            flags: SYN | FIN,
            stream: 3,
            length: 0x0001_0203,
        };
        assert_eq!(head.encode(), [0, 1, 0, 5, 0, 0, 0, 3, 0, 1, 2, 3]);
        for (bytes, why) in [
            ([1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], "another version"),
            ([0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], "unknown kind"),
            ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "of no stream"),
            ([0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], "sign of life"),
        ] {
            assert!(Head::decode(bytes).is_err_and(|fault| fault.0.contains(why)), "{why}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(bytes: [u8; HEAD]) {
            if let Ok(head) = Head::decode(bytes) {
                prop_assert_eq!(head.encode(), bytes);
            }
        }
    }
}
