//! Writing the state branch: new objects as one pack per commit (loose when few), and a compare-and-swap on the ref.

use std::io::{BufWriter, Write};

use flate2::{Compress, Compression, FlushCompress, Status};
use git2::{ObjectType, Odb, OdbLookupFlags, Oid, Repository, Signature, Time};
use sha1::{Digest, Sha1};

use super::{Repo, RepoError, object_id, oid};
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::state::NewObject;

/// Up to here objects, the commit among them, are written loose. Each is a file and mostly a new directory, which some file systems take milliseconds for; a pack with its
/// index is two files in a directory that is there.
const LOOSE_AT_MOST: usize = 3;
/// Pieces in which a pack is handed to libgit2, whose indexer maps the file anew for every piece.
const PACK_BUFFER: usize = 1 << 20;
/// Objects up to this size are stored in a pack as they are.
const STORED_AT_MOST: usize = 256;

/// A commit to be made.
#[derive(Debug, Clone)]
pub struct Commit<'a> {
    /// Full name of the ref that moves.
    pub reference: &'a str,
    /// What the ref has to point to; `None`: the ref must not exist yet.
    pub parent: Option<ObjectId>,
    /// The root tree.
    pub tree: ObjectId,
    /// The whole message.
    pub message: &'a str,
    /// The user who asked for it; nobody for what the hub does by itself.
    pub author: Option<&'a str>,
    /// Seconds since 1970.
    pub time: i64,
}

/// What a commit says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its root tree.
    pub tree: ObjectId,
    /// Its parents.
    pub parents: Vec<ObjectId>,
    /// The whole message.
    pub message: String,
    /// `name <email>` of the author.
    pub author: String,
}

/// Why a commit was not made.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else moved the ref.
    #[error("{reference} was moved by somebody else")]
    Moved {
        /// The ref.
        reference: String,
    },
    /// The repository could not be written.
    #[error("cannot write to the state repository")]
    Repo(#[from] RepoError),
    /// The pack could not be written.
    #[error("cannot write a pack")]
    Pack(#[source] std::io::Error),
}

/// More packs than this are joined.
const MAX_PACKS: usize = 50;
/// More loose objects than this in one of the 256 directories are packed, as `git gc --auto` judges.
const MAX_LOOSE: usize = 27;

const NAME: &str = "Branchline";
const EMAIL: &str = "hub@branchline.io";

impl Repo {
    /// The objects that the repository does not have.
    pub fn missing(&self, mut objects: Vec<NewObject>) -> Result<Vec<NewObject>, RepoError> {
        let repository = self.handle()?;
        let odb = repository.odb().map_err(RepoError::git("open the object database"))?;
        // Without this flag git looks into every directory of packs again for each object that is not there. The handle is as fresh as this call.
        objects.retain(|object| !odb.exists_ext(oid(object.id), OdbLookupFlags::NO_REFRESH));
        Ok(objects)
    }

    /// Writes objects and a commit over them, as one pack unless they are few, and moves the ref, unless somebody else moved it meanwhile. Looks for
    /// nothing in the repository: what is there already would be there twice until packs are joined.
    pub fn commit(&self, objects: &[NewObject], commit: &Commit<'_>) -> Result<ObjectId, WriteError> {
        let repository = self.handle()?;
        let written = commit_object(commit).map_err(RepoError::git(format!("write a commit for {}", commit.reference)))?;
        let odb = repository.odb().map_err(RepoError::git("open the object database"))?;
        let all: Vec<&NewObject> = objects.iter().chain([&written]).collect();
        if all.len() <= LOOSE_AT_MOST {
            for object in all {
                odb.write(object_type(object.kind), &object.bytes)
                    .map_err(RepoError::git(format!("write object {}", object.id)))?;
            }
        } else {
            write_pack(&odb, &all)?;
        }
        move_reference(&repository, commit, oid(written.id))?;
        Ok(written.id)
    }

    /// Whether packs or loose objects are so many that reading slows down.
    pub fn needs_repack(&self) -> bool {
        let objects = self.path().join("objects");
        let count = |directory: &str, ending: &str| {
            let entries = std::fs::read_dir(objects.join(directory)).into_iter().flatten().flatten();
            entries
                .filter(|entry| entry.file_name().to_string_lossy().ends_with(ending))
                .count()
        };
        count("pack", ".pack") > MAX_PACKS || count("17", "") > MAX_LOOSE
    }

    /// Removes the lock that a process which was killed left on a ref of the hub's own, once it is older than any writer takes.
    pub fn remove_stale_lock(&self, reference: &str) -> bool {
        const STALE: std::time::Duration = std::time::Duration::from_secs(60);
        let lock = self.path().join(format!("{reference}.lock"));
        let age = std::fs::metadata(&lock)
            .and_then(|found| found.modified())
            .ok()
            .and_then(|at| at.elapsed().ok());
        age.is_some_and(|age| age > STALE) && std::fs::remove_file(&lock).is_ok()
    }

    /// Moves a ref from one commit to another; `from` is `None` for a ref that must not exist.
    pub fn move_ref(&self, reference: &str, from: Option<ObjectId>, to: ObjectId) -> Result<(), WriteError> {
        let repository = self.handle()?;
        let commit = Commit {
            reference,
            parent: from,
            tree: to,
            message: "",
            author: None,
            time: 0,
        };
        move_reference(&repository, &commit, oid(to))
    }

    /// What a commit says.
    pub fn commit_info(&self, id: ObjectId) -> Result<CommitInfo, RepoError> {
        let repository = self.handle()?;
        let commit = repository
            .find_commit(oid(id))
            .map_err(RepoError::git(format!("read commit {id}")))?;
        let author = commit.author();
        let name = String::from_utf8_lossy(author.name_bytes());
        let email = String::from_utf8_lossy(author.email_bytes());
        Ok(CommitInfo {
            tree: object_id(commit.tree_id()),
            parents: commit.parent_ids().map(object_id).collect(),
            message: String::from_utf8_lossy(commit.message_bytes()).into_owned(),
            author: format!("{name} <{email}>"),
        })
    }
}

/// A commit as git stores it.
fn commit_object(commit: &Commit<'_>) -> Result<NewObject, git2::Error> {
    let time = Time::new(commit.time, 0);
    let committer = Signature::new(NAME, EMAIL, &time)?;
    let author = match commit.author {
        Some(user) => author(user, commit.time)?,
        None => committer.to_owned(),
    };
    let mut bytes = format!("tree {}\n", commit.tree).into_bytes();
    if let Some(parent) = commit.parent {
        bytes.extend(format!("parent {parent}\n").into_bytes());
    }
    for (role, who) in [("author", &author), ("committer", &committer)] {
        bytes.extend(role.bytes().chain([b' ']));
        bytes.extend(who.name_bytes().iter().chain(b" <").chain(who.email_bytes()));
        bytes.extend(format!("> {} +0000\n", commit.time).into_bytes());
    }
    bytes.extend([b'\n']);
    bytes.extend(commit.message.as_bytes());
    Ok(NewObject {
        kind: ObjectKind::Commit,
        id: ObjectId::hash(ObjectKind::Commit, &bytes),
        bytes: bytes.into(),
    })
}

/// The signature of a user: an address where the name is one, else one that says that it is a user of the hub.
fn author(user: &str, time: i64) -> Result<Signature<'static>, git2::Error> {
    // Git keeps name and address between these characters.
    let name: String = user.chars().filter(|c| !c.is_control() && !['<', '>'].contains(c)).collect();
    let name = match name.trim() {
        "" => "unknown",
        name => name,
    };
    let email = match name.contains('@') && !name.contains(' ') {
        true => name.to_owned(),
        false => format!("{}@users.branchline.io", name.replace(' ', "-")),
    };
    let time = Time::new(time, 0);
    // Git refuses names of nothing but its own punctuation.
    Signature::new(name, &email, &time).or_else(|_| Signature::new("unknown", "unknown@users.branchline.io", &time))
}

fn move_reference(repository: &Repository, commit: &Commit<'_>, to: Oid) -> Result<(), WriteError> {
    let moved = match commit.parent {
        Some(parent) => repository.reference_matching(commit.reference, to, true, oid(parent), "branchline"),
        None => repository.reference(commit.reference, to, false, "branchline"),
    };
    match moved {
        Ok(_) => Ok(()),
        Err(error)
            if matches!(
                error.code(),
                git2::ErrorCode::Modified | git2::ErrorCode::Exists | git2::ErrorCode::NotFound
            ) =>
        {
            Err(WriteError::Moved {
                reference: commit.reference.to_owned(),
            })
        }
        Err(error) => Err(RepoError::git(format!("move {}", commit.reference))(error).into()),
    }
}

fn object_type(kind: ObjectKind) -> ObjectType {
    match kind {
        ObjectKind::Blob => ObjectType::Blob,
        ObjectKind::Tree => ObjectType::Tree,
        ObjectKind::Commit => ObjectType::Commit,
    }
}

/// Streams one pack into the object database, whose writer indexes and verifies it. Ten times faster than loose objects and, unlike
/// `Mempack::dump`, proportional to what is new.
fn write_pack(odb: &Odb<'_>, objects: &[&NewObject]) -> Result<(), WriteError> {
    let mut writer = odb.packwriter().map_err(RepoError::git("begin a pack"))?;
    let hashing = HashingWriter {
        inner: &mut writer,
        hasher: Sha1::new(),
    };
    let mut pack = BufWriter::with_capacity(PACK_BUFFER, hashing);
    write_entries(&mut pack, objects).map_err(WriteError::Pack)?;
    let hashing = pack.into_inner().map_err(|error| WriteError::Pack(error.into_error()))?;
    let digest = hashing.hasher.finalize();
    writer.write_all(&digest).map_err(WriteError::Pack)?;
    writer.commit().map_err(RepoError::git("index a pack"))?;
    Ok(())
}

fn write_entries(pack: &mut impl Write, objects: &[&NewObject]) -> std::io::Result<()> {
    let count = u32::try_from(objects.len()).map_err(std::io::Error::other)?;
    pack.write_all(b"PACK\0\0\0\x02")?;
    pack.write_all(&count.to_be_bytes())?;
    let mut entry = Vec::new();
    let mut deflater = Compress::new(Compression::fast(), true);
    for object in objects {
        entry.clear();
        write_entry_header(&mut entry, object);
        match object.bytes.len() {
            ..=STORED_AT_MOST => write_stored(&mut entry, &object.bytes),
            _ => write_deflated(&mut entry, &mut deflater, &object.bytes)?,
        }
        pack.write_all(&entry)?;
    }
    Ok(())
}

/// One zlib stream with one stored block (RFC 1950, RFC 1951 3.2.4). Preparing a deflater clears 128 KiB, which takes longer than everything
/// else about a small object, and ids in trees do not compress anyway.
fn write_stored(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEADER: [u8; 2] = [0x78, 0x01];
    const LAST_BLOCK_STORED: u8 = 1;
    let length = bytes.len() as u16;
    out.extend(HEADER);
    out.push(LAST_BLOCK_STORED);
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend(bytes);
    out.extend(adler32(bytes).to_be_bytes());
}

/// Checksum of RFC 1950. So few bytes cannot overflow before the remainder is taken.
fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    let (mut a, mut b) = (1, 0);
    for byte in bytes {
        a += u32::from(*byte);
        b += a;
    }
    ((b % MODULUS) << 16) | (a % MODULUS)
}

fn write_deflated(out: &mut Vec<u8>, deflater: &mut Compress, bytes: &[u8]) -> std::io::Result<()> {
    deflater.reset();
    loop {
        // Random bytes grow by an eighth at this level.
        out.reserve(bytes.len() / 8 * 9 + 64);
        let rest = bytes.get(deflater.total_in() as usize..).unwrap_or_default();
        if deflater.compress_vec(rest, out, FlushCompress::Finish)? == Status::StreamEnd {
            return Ok(());
        }
    }
}

/// Type and length as gitformat-pack describes them: four bits of the length beside the type, then seven a byte.
fn write_entry_header(out: &mut Vec<u8>, object: &NewObject) {
    let kind: u8 = match object.kind {
        ObjectKind::Commit => 1,
        ObjectKind::Tree => 2,
        ObjectKind::Blob => 3,
    };
    let mut rest = object.bytes.len();
    let mut byte = (kind << 4) | (rest & 0x0f) as u8;
    rest >>= 4;
    while rest > 0 {
        out.push(byte | 0x80);
        byte = (rest & 0x7f) as u8;
        rest >>= 7;
    }
    out.push(byte);
}

struct HashingWriter<'a, W: Write> {
    inner: &'a mut W,
    hasher: Sha1,
}

impl<W: Write> Write for HashingWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
