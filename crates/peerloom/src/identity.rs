//! A node's key, kept in its data directory.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use peerloom_core::{KeyError, Keypair};

/// The private key in libp2p's protobuf encoding, readable by its owner alone.
const FILE_NAME: &str = "identity.key";
/// Far more than any key that we write; a larger file is not one.
const MAX_FILE_LENGTH: u64 = 4096;

/// Why there is no identity in a directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file, or its directory, cannot be read or written.
    #[error("identity {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is far larger than a key.
    #[error("identity {}: too large to be a key", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no key.
    #[error("identity {}: {source}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
}

/// The identity that is kept in `directory`; a new one, put there for its owner alone to read, if there is none.
///
/// The file `identity.key` has the key in libp2p's protobuf encoding, which other implementations read, too.
pub fn load_or_create(directory: &Path) -> Result<Keypair, IdentityError> {
    let path = directory.join(FILE_NAME);
    let failed = |source| IdentityError::Io { path: path.clone(), source };
    match fs::metadata(&path) {
        Ok(file) if file.len() > MAX_FILE_LENGTH => Err(IdentityError::TooLarge { path }),
        Ok(_) => {
            let bytes = fs::read(&path).map_err(failed)?;
            Keypair::decode_protobuf(&bytes).map_err(|source| IdentityError::Damaged { path, source })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let keypair = Keypair::generate();
            create_directory(directory).map_err(failed)?;
            write_new(&path, &keypair.encode_protobuf()).map_err(failed)?;
            Ok(keypair)
        }
        Err(error) => Err(failed(error)),
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

/// Whole or not at all: a key that was half written when the machine went down would be another identity.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("key.new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("made/on/demand");
        let first = load_or_create(&inside).unwrap();
        assert_eq!(load_or_create(&inside).unwrap().peer_id(), first.peer_id());
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_but_its_owner_reads_an_identity() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        load_or_create(directory.path()).unwrap();
        let mode = fs::metadata(directory.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_holds_no_key_is_named_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        fs::write(&path, "no key").unwrap();
        let error = load_or_create(directory.path()).unwrap_err();
        assert!(matches!(&error, IdentityError::Damaged { path: named, .. } if *named == path), "{error}");
        fs::write(&path, vec![0; 5000]).unwrap();
        assert!(matches!(load_or_create(directory.path()), Err(IdentityError::TooLarge { .. })));
        assert_eq!(fs::read(&path).unwrap().len(), 5000);
    }
}
