//! Frames of the control stream: `u32 rest | u32 json | JSON | attachment`, big endian. Owns the limits; never allocates what a
//! peer merely announced.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest JSON part of a frame.
pub const MAX_JSON: usize = 4 << 20;
/// The longest frame, counted without its first length field.
pub const MAX_FRAME: usize = 16 << 20;
/// The longest attachment that fits beside the longest JSON.
pub const MAX_ATTACHMENT: usize = MAX_FRAME - MAX_JSON - JSON_LENGTH;

const LENGTHS: usize = 8;
const JSON_LENGTH: usize = 4;

/// A message that came, with what was attached to it.
#[derive(Clone, PartialEq, Debug)]
pub struct Received<M> {
    /// The message.
    pub message: M,
    /// The bytes behind its JSON.
    pub attachment: Bytes,
}

/// Why a message cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The message has no JSON form.
    #[error("the message cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    /// The JSON is longer than a receiver would take.
    #[error("the message's JSON has {0} bytes, more than the {MAX_JSON} that a frame may hold")]
    JsonTooLong(usize),
    /// The frame is longer than a receiver would take.
    #[error("the message has {0} bytes, more than the {MAX_FRAME} that a frame may hold")]
    FrameTooLong(usize),
}

/// Why the bytes of a peer are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The announced frame is too long.
    #[error("a frame of {0} bytes was announced, more than the {MAX_FRAME} allowed")]
    FrameTooLong(u32),
    /// The announced JSON is too long, or longer than its frame.
    #[error("JSON of {json} bytes was announced in a frame of {frame} (at most {MAX_JSON} bytes of JSON are allowed)")]
    JsonTooLong {
        /// Announced length of the JSON.
        json: u32,
        /// Announced length of the frame.
        frame: u32,
    },
    /// The JSON is not a message.
    #[error("the JSON in a frame is not a message of this protocol")]
    Json(#[source] serde_json::Error),
}

/// The frame that carries `message` and `attachment`.
pub fn encode<M: Serialize>(message: &M, attachment: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let mut frame = vec![0; LENGTHS];
    serde_json::to_writer(&mut frame, message).map_err(EncodeError::Json)?;
    let json = frame.len() - LENGTHS;
    if json > MAX_JSON {
        return Err(EncodeError::JsonTooLong(json));
    }
    let rest = JSON_LENGTH + json + attachment.len();
    let rest_field = u32::try_from(rest).map_err(|_| EncodeError::FrameTooLong(rest))?;
    let json_field = u32::try_from(json).map_err(|_| EncodeError::JsonTooLong(json))?;
    if rest > MAX_FRAME {
        return Err(EncodeError::FrameTooLong(rest));
    }
    frame[..4].copy_from_slice(&rest_field.to_be_bytes());
    frame[4..LENGTHS].copy_from_slice(&json_field.to_be_bytes());
    frame.extend_from_slice(attachment);
    Ok(frame)
}

/// The first message in `buffer`, taken out of it; `None` while its end has not come yet.
pub fn take<M: DeserializeOwned>(buffer: &mut BytesMut) -> Result<Option<Received<M>>, DecodeError> {
    let Some(lengths) = announced(buffer)? else {
        return Ok(None);
    };
    if buffer.len() < lengths.total() {
        return Ok(None);
    }
    let mut frame = buffer.split_to(lengths.total()).freeze();
    let attachment = frame.split_off(LENGTHS + lengths.json);
    let message = serde_json::from_slice(&frame[LENGTHS..]).map_err(DecodeError::Json)?;
    Ok(Some(Received { message, attachment }))
}

/// How many more bytes the first frame in `buffer` needs, as far as that can be said: never more than [`MAX_FRAME`].
pub fn lacking(buffer: &[u8]) -> Result<usize, DecodeError> {
    let wanted = announced(buffer)?.map_or(LENGTHS, |lengths| lengths.total());
    Ok(wanted.saturating_sub(buffer.len()))
}

struct Lengths {
    json: usize,
    attachment: usize,
}

impl Lengths {
    fn total(&self) -> usize {
        LENGTHS + self.json + self.attachment
    }
}

fn announced(buffer: &[u8]) -> Result<Option<Lengths>, DecodeError> {
    let Some((&[a, b, c, d, e, f, g, h], _)) = buffer.split_first_chunk::<LENGTHS>() else {
        return Ok(None);
    };
    let (frame, json) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    if frame as usize > MAX_FRAME {
        return Err(DecodeError::FrameTooLong(frame));
    }
    let body = (frame as usize).checked_sub(JSON_LENGTH);
    match body.and_then(|body| body.checked_sub(json as usize)) {
        Some(attachment) if json as usize <= MAX_JSON => Ok(Some(Lengths {
            json: json as usize,
            attachment,
        })),
        _ => Err(DecodeError::JsonTooLong { json, frame }),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn buffer(bytes: &[u8]) -> BytesMut {
        BytesMut::from(bytes)
    }

    fn value() -> impl Strategy<Value = Value> {
        ("[a-z]{0,8}", any::<u64>(), ".{0,40}").prop_map(|(key, number, text)| json!({"type": key, "n": number, "t": text}))
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(messages in prop::collection::vec((value(), prop::collection::vec(any::<u8>(), 0..300)), 1..5), cut in 1usize..64) {
            let bytes: Vec<u8> = messages.iter().flat_map(|(m, a)| encode(m, a).unwrap()).collect();
            let mut received = Vec::new();
            let mut pending = BytesMut::new();
            for piece in bytes.chunks(cut) {
                pending.extend_from_slice(piece);
                while let Some(next) = take::<Value>(&mut pending).unwrap() {
                    received.push((next.message, next.attachment.to_vec()));
                }
            }
            prop_assert_eq!(received, messages);
            prop_assert!(pending.is_empty());
        }

        #[test]
        fn a_truncated_frame_is_waited_for(message in value(), keep in 0.0f64..1.0) {
            let bytes = encode(&message, b"attached").unwrap();
            let kept = (bytes.len() as f64 * keep) as usize;
            let mut pending = buffer(&bytes[..kept]);
            prop_assert!(take::<Value>(&mut pending).unwrap().is_none());
            let lacking = lacking(&bytes[..kept]).unwrap();
            prop_assert!(lacking > 0 && kept + lacking <= bytes.len());
        }

        #[test]
        fn garbage_is_refused_or_waited_for(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut pending = buffer(&bytes);
            // Neither a panic nor a promise to wait for more than a frame may hold.
            while let Ok(Some(_)) = take::<Value>(&mut pending) {}
            if let Ok(lacking) = lacking(&pending) {
                prop_assert!(lacking <= MAX_FRAME + LENGTHS);
            }
        }
    }

    #[test]
    fn limits_hold_before_anything_is_allocated() {
        let frame = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes();
        let announced = [&frame[..], &[0, 0, 0, 1]].concat();
        assert!(matches!(
            take::<Value>(&mut buffer(&announced)),
            Err(DecodeError::FrameTooLong(_))
        ));
        let json = u32::try_from(MAX_JSON + 1).unwrap().to_be_bytes();
        let announced = [&(8u32 << 20).to_be_bytes()[..], &json[..]].concat();
        assert!(matches!(lacking(&announced), Err(DecodeError::JsonTooLong { .. })));
        assert!(matches!(
            lacking(&[0, 0, 0, 2, 0, 0, 0, 0]),
            Err(DecodeError::JsonTooLong { .. })
        ));
        assert!(matches!(
            lacking(&[0, 0, 0, 8, 0, 0, 0, 5]),
            Err(DecodeError::JsonTooLong { .. })
        ));
    }

    #[test]
    fn what_a_receiver_would_refuse_is_not_sent() {
        assert!(matches!(
            encode(&json!({"t": "x".repeat(MAX_JSON)}), b""),
            Err(EncodeError::JsonTooLong(_))
        ));
        assert!(matches!(
            encode(&json!({}), &vec![0; MAX_FRAME]),
            Err(EncodeError::FrameTooLong(_))
        ));
        assert!(encode(&json!({}), &vec![0; MAX_ATTACHMENT]).is_ok());
    }
}
