//! Which cluster this host belongs to: a file beside the credentials, written by `join`. It knows no scheduler and no driver.
//!
//! Decision: containers and domains are marked with the cluster's id, not with its name, which stands in the certificate: two clusters
//! may bear one name, and an agent must never take another cluster's work for its own.

use std::path::{Path, PathBuf};

use supercloud_proto::pki::secret_file::{self, SecretFileError};

/// The file in the data directory.
const FILE: &str = "cluster";
/// Hexadecimal digits of an id.
const DIGITS: usize = 32;

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum UnknownCluster {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// What was to be written, or was read, is no id.
    #[error(
        "{path}: expected the id of a cluster, {DIGITS} digits of 0-9 and a-f (`supercloud scheduler list -o json` tells it), found {found:?}"
    )]
    NoId {
        /// The file.
        path: PathBuf,
        /// What stands there.
        found: String,
    },
}

/// The id that was written.
pub(crate) fn read(data_dir: &Path) -> Result<String, UnknownCluster> {
    let path = data_dir.join(FILE);
    let text = secret_file::read(&path)?;
    checked(path, text.trim())
}

/// Writes an id, over whatever is there.
pub(crate) fn write(data_dir: &Path, id: &str) -> Result<(), UnknownCluster> {
    let path = data_dir.join(FILE);
    let id = checked(path.clone(), id)?;
    Ok(secret_file::write(&path, &id)?)
}

fn checked(path: PathBuf, id: &str) -> Result<String, UnknownCluster> {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if id.len() == DIGITS && id.bytes().all(is_digit) {
        Ok(id.to_owned())
    } else {
        Err(UnknownCluster::NoId { path, found: id.chars().take(2 * DIGITS).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_back_and_nothing_else_is_one() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path()), Err(UnknownCluster::File(_))));
        let id = "e52ebba11c33673b4d8c2d11b2a34783";
        write(folder.path(), id).unwrap();
        assert_eq!(read(folder.path()).unwrap(), id);
        for wrong in ["", "quickstart", &id.to_uppercase(), &id[1..]] {
            assert!(matches!(write(folder.path(), wrong), Err(UnknownCluster::NoId { .. })), "{wrong}");
        }
        assert_eq!(read(folder.path()).unwrap(), id);
    }
}
