//! The heads of websocket frames (RFC 6455 §5.2), written and read. Pure; knows neither connections nor what frames carry.

use super::super::Role;

/// The longest head: two bytes, eight of length, four of mask.
pub(super) const MAX_HEAD: usize = 14;
/// The most that a control frame carries.
pub(super) const MAX_CONTROL: usize = 125;
/// The longest frame that is taken.
const MAX_FRAME: u64 = 256 << 10;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// In place of a length: the length stands in the next two bytes, or in the next eight.
const TWO_BYTES: u8 = 126;
const EIGHT_BYTES: u8 = 127;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// More of the message that was begun.
    Continuation,
    /// Begins a message of text, which no tunnel has.
    Text,
    /// Begins a message of bytes.
    Binary,
    /// The end of what the peer sends.
    Close,
    /// Asks for a Pong with the same payload.
    Ping,
    /// Answers a Ping.
    Pong,
}

impl Kind {
    fn of(opcode: u8) -> Result<Self, Fault> {
        Ok(match opcode {
            0x0 => Kind::Continuation,
            0x1 => Kind::Text,
            0x2 => Kind::Binary,
            0x8 => Kind::Close,
            0x9 => Kind::Ping,
            0xa => Kind::Pong,
            _ => return Err(Fault("a frame of a kind that does not exist")),
        })
    }

    fn opcode(self) -> u8 {
        match self {
            Kind::Continuation => 0x0,
            Kind::Text => 0x1,
            Kind::Binary => 0x2,
            Kind::Close => 0x8,
            Kind::Ping => 0x9,
            Kind::Pong => 0xa,
        }
    }

    /// Whether it may stand between the frames of a message.
    pub(super) fn is_control(self) -> bool {
        matches!(self, Kind::Close | Kind::Ping | Kind::Pong)
    }
}

/// A frame's head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) kind: Kind,
    /// Whether it is the last frame of its message.
    pub(super) is_final: bool,
    /// Bytes of payload.
    pub(super) length: usize,
    /// What the payload is masked with; of the hub's frames none is.
    pub(super) mask: [u8; 4],
}

/// Bytes that are no frame of a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the peer does not speak the tunnel's websocket protocol: it sent {0}")]
pub(super) struct Fault(pub(super) &'static str);

/// How long a head is that begins with these two bytes.
pub(super) fn head_length(begin: [u8; 2]) -> usize {
    let length = match begin[1] & LENGTH {
        TWO_BYTES => 2,
        EIGHT_BYTES => 8,
        _ => 0,
    };
    let mask = if begin[1] & MASKED != 0 { 4 } else { 0 };
    2 + length + mask
}

/// Reads a whole head, as long as [`head_length`] says, that `reader` has received. Agents mask, hubs do not (RFC 6455 §5.1).
pub(super) fn read_head(bytes: &[u8], reader: Role) -> Result<Head, Fault> {
    let (begin, rest) = bytes.split_first_chunk().ok_or(CUT)?;
    let [first, second]: [u8; 2] = *begin;
    if first & RESERVED != 0 {
        return Err(Fault("a frame of an extension that nobody agreed on"));
    }
    let (kind, is_final) = (Kind::of(first & OPCODE)?, first & FIN != 0);
    let (length, rest) = read_length(second & LENGTH, rest)?;
    if kind.is_control() && (!is_final || length > MAX_CONTROL) {
        return Err(Fault("a control frame that is too long or in parts"));
    }
    let mask = match (second & MASKED != 0, reader) {
        (true, Role::Hub) => *rest.first_chunk().ok_or(CUT)?,
        (false, Role::Agent) => [0; 4],
        (false, Role::Hub) => return Err(Fault("a frame without a mask, although it is the agent")),
        (true, Role::Agent) => return Err(Fault("a frame with a mask, although it is the hub")),
    };
    Ok(Head {
        kind,
        is_final,
        length,
        mask,
    })
}

const CUT: Fault = Fault("a head that ends too early");

fn read_length(begin: u8, rest: &[u8]) -> Result<(usize, &[u8]), Fault> {
    let (length, rest) = match begin {
        TWO_BYTES => rest
            .split_first_chunk()
            .map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest)),
        EIGHT_BYTES => rest
            .split_first_chunk()
            .map(|(length, rest)| (u64::from_be_bytes(*length), rest)),
        short => Some((u64::from(short), rest)),
    }
    .ok_or(CUT)?;
    match usize::try_from(length) {
        Ok(fits) if length <= MAX_FRAME => Ok((fits, rest)),
        _ => Err(Fault("a frame that is longer than 256 KiB")),
    }
}

/// Appends the head of an unfragmented frame that `writer` sends.
///
/// An agent has to mask, and masks with zeros, which changes nothing. Masks keep browsers' scripts from composing bytes that a proxy on the way
/// takes for a request (RFC 6455 §10.3); here no script chooses bytes, and no proxy sees any, because the connection is TLS up to the hub,
/// whose certificate the agent has pinned.
pub(super) fn write_head(writer: Role, kind: Kind, length: usize, target: &mut impl Extend<u8>) {
    let masked = match writer {
        Role::Hub => 0,
        Role::Agent => MASKED,
    };
    target.extend([FIN | kind.opcode()]);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < TWO_BYTES => target.extend([masked | short]),
        (_, Ok(medium)) => {
            target.extend([masked | TWO_BYTES]);
            target.extend(medium.to_be_bytes());
        }
        _ => {
            target.extend([masked | EIGHT_BYTES]);
            target.extend((length as u64).to_be_bytes());
        }
    }
    if masked != 0 {
        target.extend([0; 4]);
    }
}

/// Takes the mask off bytes that stand `position` bytes behind the payload's begin.
pub(super) fn unmask(bytes: &mut [u8], mask: [u8; 4], position: usize) {
    if mask == [0; 4] {
        return;
    }
    let mut key = mask;
    key.rotate_left(position % 4);
    for piece in bytes.chunks_mut(4) {
        piece.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn written(writer: Role, kind: Kind, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_head(writer, kind, length, &mut bytes);
        bytes
    }

    #[test]
    fn heads_are_those_of_the_standard() {
        // RFC 6455 §5.7: a Ping of five bytes without mask, 256 bytes and 64 KiB of binary data.
        assert_eq!(written(Role::Hub, Kind::Ping, 5), [0x89, 0x05]);
        assert_eq!(written(Role::Hub, Kind::Binary, 256), [0x82, 0x7e, 1, 0]);
        assert_eq!(written(Role::Hub, Kind::Binary, 65536), [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(written(Role::Agent, Kind::Pong, 1), [0x8a, 0x81, 0, 0, 0, 0]);
        // And its masked "Hello".
        let bytes = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let head = read_head(&bytes[..6], Role::Hub).unwrap();
        assert_eq!((head.kind, head.is_final, head.length), (Kind::Binary, true, 5));
        let mut hello: [u8; 5] = *bytes.last_chunk().unwrap();
        let (begin, end) = hello.split_at_mut(3);
        unmask(begin, head.mask, 0);
        unmask(end, head.mask, 3);
        assert_eq!(&hello, b"Hello");
    }

    #[test]
    fn what_is_no_frame_says_why() {
        let long = [0x82, 0x7f, 0, 0, 0, 0, 0, 4, 0, 1];
        let endless = [0x82, 0x7f, 0xff, 0, 0, 0, 0, 0, 0, 0];
        for (bytes, reader, why) in [
            (&[0xc2, 0][..], Role::Agent, "extension"),
            (&[0x83, 0], Role::Agent, "does not exist"),
            (&[0x09, 0], Role::Agent, "in parts"),
            (&[0x89, 0x7e, 0, 126], Role::Agent, "too long"),
            (&[0x82, 0x80, 0, 0, 0, 0], Role::Agent, "with a mask"),
            (&[0x82, 0], Role::Hub, "without a mask"),
            (&long, Role::Agent, "longer than 256 KiB"),
            (&endless, Role::Agent, "longer than 256 KiB"),
            (&[0x82], Role::Agent, "ends too early"),
        ] {
            let error = read_head(bytes, reader).unwrap_err().to_string();
            assert!(error.contains(why), "{bytes:x?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(length in 0..=(256usize << 10), agent: bool) {
            let (writer, reader) = if agent { (Role::Agent, Role::Hub) } else { (Role::Hub, Role::Agent) };
            let bytes = written(writer, Kind::Binary, length);
            prop_assert_eq!(head_length(*bytes.first_chunk().unwrap()), bytes.len());
            let head = read_head(&bytes, reader).unwrap();
            prop_assert_eq!(head, Head { kind: Kind::Binary, is_final: true, length, mask: [0; 4] });
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, agent: bool) {
            let reader = if agent { Role::Agent } else { Role::Hub };
            if let Some(begin) = bytes.first_chunk() {
                let _ = read_head(&bytes[..head_length(*begin).min(bytes.len())], reader);
            }
        }
    }
}
