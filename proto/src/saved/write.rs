//! Writes a saved state: piece by piece, in one go, without holding it.

use std::io::{self, Write};

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::{PIECE_BYTES, START, SavedHead, checksum};

/// Takes the records' bytes as a [`Write`], and makes pieces of them.
pub struct SavedWriter<W> {
    out: W,
    piece: Vec<u8>,
    /// Where in the file the next piece begins.
    offset: u64,
    bytes: u64,
    hash: Sha256,
}

impl<W: Write> SavedWriter<W> {
    /// Begins a file with its head.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin(mut out: W, head: &SavedHead) -> io::Result<Self> {
        out.write_all(START)?;
        let offset = START.len() as u64;
        let mut writer =
            Self { out, piece: Vec::with_capacity(PIECE_BYTES), offset, bytes: 0, hash: Sha256::new() };
        writer.write_all(&head.encode_to_vec())?;
        writer.end_piece()?;
        Ok(writer)
    }

    /// Ends the file. Without it the file counts as cut off.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_piece()?;
        let mut end = self.bytes.to_le_bytes().to_vec();
        end.extend_from_slice(&std::mem::take(&mut self.hash).finalize());
        self.out.write_all(&0u32.to_le_bytes())?;
        self.out.write_all(&checksum(self.offset, &end).to_le_bytes())?;
        self.out.write_all(&end)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn end_piece(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let length = self.piece.len() as u32;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&checksum(self.offset, &self.piece).to_le_bytes())?;
        self.out.write_all(&self.piece)?;
        self.hash.update(&self.piece);
        self.bytes += u64::from(length);
        self.offset += super::PIECE_HEAD as u64 + u64::from(length);
        self.piece.clear();
        Ok(())
    }
}

impl<W: Write> Write for SavedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE_BYTES {
            self.end_piece()?;
        }
        Ok(taken)
    }

    /// Does nothing: pieces are full, or the file has ended.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
