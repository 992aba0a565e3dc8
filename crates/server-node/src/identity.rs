//! The node's key, kept in its data directory.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use anyhow::Context;
use peerloom_core::Keypair;

use crate::{cli::IdArguments, config::data_dir};

/// The private key in libp2p's protobuf encoding, readable by its owner alone.
const FILE_NAME: &str = "identity.key";
/// Far more than any key that we write; a larger file is not one.
const MAX_FILE_LENGTH: u64 = 4096;

pub(crate) fn print(arguments: &IdArguments) -> anyhow::Result<()> {
    let keypair = load_or_create(&data_dir(arguments.data_dir.clone())?)?;
    println!("{}", keypair.peer_id());
    Ok(())
}

pub(crate) fn load_or_create(data_dir: &Path) -> anyhow::Result<Keypair> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .with_context(|| format!("data_dir {}", data_dir.display()))?;
    let path = data_dir.join(FILE_NAME);
    match fs::metadata(&path) {
        Ok(file) if file.len() > MAX_FILE_LENGTH => {
            anyhow::bail!("identity {}: too large to be a key", path.display())
        }
        Ok(_) => {
            let bytes = fs::read(&path).with_context(|| format!("identity {}", path.display()))?;
            Keypair::decode_protobuf(&bytes).with_context(|| format!("identity {}", path.display()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let keypair = Keypair::generate();
            write_new(&path, &keypair.encode_protobuf())
                .with_context(|| format!("identity {}", path.display()))?;
            Ok(keypair)
        }
        Err(error) => Err(error).with_context(|| format!("identity {}", path.display())),
    }
}

/// Whole or not at all: a key that was half written when the machine went down would be another identity.
fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let unfinished = path.with_extension("key.new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}
