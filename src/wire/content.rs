//! Attachments that carry git objects: packing them into messages and taking them apart again, every byte checked against its
//! id. Never trusts a length or an id that a peer wrote.

use bytes::Bytes;

use super::codec::MAX_ATTACHMENT;
use super::control::ObjectMeta;
use crate::core::ids::{ObjectId, ObjectKind};

/// The most objects in one message, so that their JSON stays far below its limit.
pub const MAX_OBJECTS: usize = 16_384;

/// One git object with its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContentObject {
    /// Its id.
    pub id: ObjectId,
    /// Tree or blob.
    pub kind: ObjectKind,
    /// What it holds.
    pub content: Bytes,
}

/// Objects that fit into one message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    /// What is attached, in order.
    pub objects: Vec<ObjectMeta>,
    /// The contents in the same order.
    pub attachment: Vec<u8>,
}

/// Why an attachment is not what its message says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// The lengths do not add up to the attachment.
    #[error("the objects of a message have {announced} bytes, its attachment has {attached}")]
    Length {
        /// Sum of the lengths in the message.
        announced: u64,
        /// Length of the attachment.
        attached: u64,
    },
    /// The content is not what its id says.
    #[error("content that was sent as {expected} is {actual}: it was damaged or forged on the way")]
    WrongId {
        /// The id in the message.
        expected: ObjectId,
        /// The id of the content.
        actual: ObjectId,
    },
    /// One object is larger than a message can be.
    #[error("object {id} has {len} bytes, more than the {MAX_ATTACHMENT} that a message can carry")]
    TooLarge {
        /// The object.
        id: ObjectId,
        /// Its length.
        len: usize,
    },
}

/// Takes out what no message can carry; the ids of that come back apart.
pub fn split_too_large(objects: Vec<ContentObject>) -> (Vec<ContentObject>, Vec<ObjectId>) {
    let (fitting, too_large): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| object.content.len() <= MAX_ATTACHMENT);
    (fitting, too_large.into_iter().map(|object| object.id).collect())
}

/// Packs objects into as few messages as their order allows.
pub fn pack(objects: impl IntoIterator<Item = ContentObject>) -> Result<Vec<Batch>, ContentError> {
    let mut batches: Vec<Batch> = Vec::new();
    for object in objects {
        let len = object.content.len();
        if len > MAX_ATTACHMENT {
            return Err(ContentError::TooLarge { id: object.id, len });
        }
        if !batches.last().is_some_and(|batch| batch.has_room(len)) {
            batches.push(Batch::default());
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(&object);
        }
    }
    Ok(batches)
}

/// Takes an attachment apart and checks every object against its id.
pub fn unpack(objects: &[ObjectMeta], attachment: &Bytes) -> Result<Vec<ContentObject>, ContentError> {
    let announced = objects.iter().fold(0u64, |sum, object| sum.saturating_add(object.len));
    let attached = attachment.len() as u64;
    if announced != attached {
        return Err(ContentError::Length { announced, attached });
    }
    let mut rest = attachment.clone();
    objects
        .iter()
        .map(|meta| {
            // The sum was checked, so no single length exceeds what is left.
            let content = rest.split_to(usize::try_from(meta.len).unwrap_or(rest.len()).min(rest.len()));
            check(meta, content)
        })
        .collect()
}

fn check(meta: &ObjectMeta, content: Bytes) -> Result<ContentObject, ContentError> {
    let actual = ObjectId::hash(meta.kind, &content);
    if actual != meta.id {
        return Err(ContentError::WrongId {
            expected: meta.id,
            actual,
        });
    }
    Ok(ContentObject {
        id: meta.id,
        kind: meta.kind,
        content,
    })
}

impl Batch {
    fn has_room(&self, len: usize) -> bool {
        self.objects.len() < MAX_OBJECTS && self.attachment.len() + len <= MAX_ATTACHMENT
    }

    fn push(&mut self, object: &ContentObject) {
        self.attachment.extend_from_slice(&object.content);
        self.objects.push(ObjectMeta {
            id: object.id,
            kind: object.kind,
            len: object.content.len() as u64,
        });
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn blob(content: Vec<u8>) -> ContentObject {
        ContentObject {
            id: ObjectId::hash(ObjectKind::Blob, &content),
            kind: ObjectKind::Blob,
            content: content.into(),
        }
    }

    #[test]
    fn packed_objects_come_out_again() {
        let objects = vec![
            blob(b"one".to_vec()),
            blob(Vec::new()),
            blob(vec![7; 9 << 20]),
            blob(vec![8; 9 << 20]),
        ];
        let batches = pack(objects.clone()).unwrap();
        assert_eq!(batches.len(), 2, "two times 9 MiB do not fit into one message");
        let unpacked: Vec<_> = batches
            .into_iter()
            .flat_map(|batch| unpack(&batch.objects, &batch.attachment.into()).unwrap())
            .collect();
        assert_eq!(unpacked, objects);
    }

    #[test]
    fn what_no_message_can_carry_is_left_out() {
        let (small, large) = (blob(b"one".to_vec()), blob(vec![7; MAX_ATTACHMENT + 1]));
        assert!(pack([large.clone()]).is_err());
        let (fitting, too_large) = split_too_large(vec![large.clone(), small.clone()]);
        assert_eq!((fitting, too_large), (vec![small], vec![large.id]));
    }

    #[test]
    fn forged_content_and_lengths_are_refused() {
        let batch = pack([blob(b"one".to_vec())]).unwrap().remove(0);
        let forged = unpack(&batch.objects, &Bytes::from_static(b"two"));
        assert!(matches!(forged, Err(ContentError::WrongId { .. })));
        let long = unpack(&batch.objects, &Bytes::from_static(b"onemore"));
        assert!(matches!(
            long,
            Err(ContentError::Length {
                announced: 3,
                attached: 7
            })
        ));
        let huge = ObjectMeta {
            len: u64::MAX,
            ..batch.objects[0]
        };
        assert!(unpack(&[huge, huge], &Bytes::from_static(b"one")).is_err());
    }
}
