//! Where certificates and their keys are kept, so that advertised hashes survive a restart.

use std::{fmt, fs, io, io::Write as _, path::PathBuf};

/// Keeps one small secret document.
pub trait CertificateStore: fmt::Debug + Send + Sync {
    /// What was saved last; `None` if nothing ever was.
    fn load(&self) -> io::Result<Option<Vec<u8>>>;

    /// Replaces what is kept, wholly or not at all.
    fn save(&self, pem: &[u8]) -> io::Result<()>;

    /// The place, for error messages.
    fn place(&self) -> String;
}

/// Keeps nothing: a restart makes new certificates, and addresses given out before stop working.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryStore;

impl CertificateStore for MemoryStore {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
    fn save(&self, _pem: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn place(&self) -> String {
        "memory".to_owned()
    }
}

/// Keeps `webtransport-certificates.pem` in a directory, readable by its owner only.
#[derive(Debug, Clone)]
pub struct DirectoryStore {
    directory: PathBuf,
}

impl DirectoryStore {
    /// `directory` is made when first written to.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.directory.join("webtransport-certificates.pem")
    }
}

impl CertificateStore for DirectoryStore {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.file()) {
            Ok(pem) => Ok(Some(pem)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn save(&self, pem: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let file = self.file();
        // Beside the file, because only a rename within one file system is atomic.
        let temporary = file.with_extension("pem.new");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut writer = options.open(&temporary)?;
        writer.write_all(pem)?;
        writer.sync_all()?;
        fs::rename(&temporary, &file)
    }

    fn place(&self) -> String {
        self.file().display().to_string()
    }
}
