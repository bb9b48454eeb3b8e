//! Files that hold a private key: written so that nobody else can read them and no crash leaves half of one.
//!
//! Written beside, synced, renamed, and the directory synced. Calls block; they are made at start, when joining and when renewing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The largest file that is read. A credential is about 2 KiB; more than this is some other file.
pub const MAX_BYTES: u64 = 64 * 1024;

/// Nobody but the owner.
const MODE: u32 = 0o600;

/// Why a secret file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// There is no such file.
    #[error("{path}: expected a file, found none")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the key; it has to be considered known.
    #[error(
        "{path}: expected mode 0600, since it holds a private key, found {mode:04o} (chmod 600, or replace the key)"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no credential, by its size.
    #[error("{path}: expected at most {MAX_BYTES} bytes, found more")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The system refused a step.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done, as a verb.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads a secret file, and refuses one that others may read.
pub fn read(path: &Path) -> Result<String, SecretFileError> {
    let io = |action| move |source| failed(path, action, source);
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SecretFileError::Missing { path: path.to_owned() });
        }
        other => other.map_err(io("open it"))?,
    };
    let mode = file.metadata().map_err(io("examine it"))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(SecretFileError::TooOpen { path, mode });
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(io("read it"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(SecretFileError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

/// Writes a secret file in one step, over an older one if there is one. When it returns, the bytes are on disk.
pub fn write(path: &Path, text: &str) -> Result<(), SecretFileError> {
    let io = |action| move |source| failed(path, action, source);
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let beside = beside(path);
    // Something of this name is what a crash of an earlier process with our id left behind.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io("remove what was left beside it")(error));
        }
        _ => {}
    }
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if let Err(source) = written {
        // The first error is the one to report; a file that stays behind is removed by the next attempt.
        let _ = fs::remove_file(&beside);
        return Err(io("write it")(source));
    }
    File::open(directory).and_then(|d| d.sync_all()).map_err(io("sync the directory of it"))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    path.with_file_name(name)
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> SecretFileError {
    SecretFileError::Io { path: path.to_owned(), action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_private_whole_and_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.pem");
        write(&path, "first").unwrap();
        write(&path, "second").unwrap();
        assert_eq!(read(&path).unwrap(), "second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.pem");
        assert!(matches!(read(&path), Err(SecretFileError::Missing { .. })));
        write(&path, "secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let open = read(&path).unwrap_err();
        assert!(open.to_string().contains("found 0640"), "{open}");
        write(&path, &"x".repeat(MAX_BYTES as usize + 1)).unwrap();
        assert!(matches!(read(&path), Err(SecretFileError::TooLarge { .. })));
        let nowhere = directory.path().join("missing/agent.pem");
        assert!(matches!(write(&nowhere, "x"), Err(SecretFileError::Io { .. })));
    }
}
