//! Reads a saved state and checks each piece before a byte of it is given out.

use std::io::{self, Read};

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::{END_BYTES, FORMAT, PIECE_BYTES, PIECE_HEAD, START, SavedError, SavedHead, checksum, damaged};

/// Gives the records' bytes as a [`Read`]; a fault in the file is an [`io::Error`] that holds the [`SavedError`]. Only [`SavedReader::finish`]
/// shows that the file is whole.
pub struct SavedReader<R> {
    input: R,
    head: SavedHead,
    piece: Vec<u8>,
    taken: usize,
    /// Where in the file the next piece begins.
    offset: u64,
    bytes: u64,
    hash: Sha256,
    end: Option<Whole>,
}

/// What a file that was read to its end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Size of the file.
    pub bytes: u64,
    /// Hash over the head and all records, as it stands at the end of the file.
    pub sha256: [u8; 32],
}

impl<R: Read> SavedReader<R> {
    /// Reads the head.
    ///
    /// # Errors
    /// When it is no saved state, damaged, or of a later format.
    pub fn open(input: R) -> Result<Self, SavedError> {
        let mut reader = Self {
            input,
            head: SavedHead::default(),
            piece: Vec::new(),
            taken: 0,
            offset: START.len() as u64,
            bytes: 0,
            hash: Sha256::new(),
            end: None,
        };
        let mut start = [0; START.len()];
        reader.fill(0, &mut start)?;
        if start != *START {
            return Err(damaged(0, "it does not begin as a saved state does"));
        }
        let at = reader.offset;
        if !reader.next_piece()? {
            return Err(damaged(at, "it ends before its head"));
        }
        let piece = std::mem::take(&mut reader.piece);
        reader.head =
            SavedHead::decode(piece.as_slice()).map_err(|_| damaged(at, "the head is not readable"))?;
        if reader.head.format > FORMAT {
            return Err(SavedError::NewerFormat { found: reader.head.format, known: FORMAT });
        }
        Ok(reader)
    }

    /// What the file says about itself.
    pub fn head(&self) -> &SavedHead {
        &self.head
    }

    /// Where in the file the next piece begins: what is read now stands before it.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads what is left, and checks the whole.
    ///
    /// # Errors
    /// When the file is damaged, cut off, or goes on behind its end.
    pub fn finish(mut self) -> Result<Whole, SavedError> {
        while self.next_piece()? {}
        let mut more = [0];
        loop {
            match self.input.read(&mut more) {
                Ok(0) => break,
                Ok(_) => return Err(damaged(self.offset, "it goes on behind its end")),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.end.ok_or_else(|| damaged(self.offset, "it has no end"))
    }

    /// Takes the next piece in. `false`: there is none, and the end was as it should be.
    fn next_piece(&mut self) -> Result<bool, SavedError> {
        if self.end.is_some() {
            return Ok(false);
        }
        let at = self.offset;
        let mut head = [0; PIECE_HEAD];
        self.fill(at, &mut head)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let (length, crc) = (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([c0, c1, c2, c3]));
        if length as usize > PIECE_BYTES {
            return Err(damaged(at, "a piece is longer than any piece"));
        }
        let ends = length == 0;
        let mut piece = vec![0; if ends { END_BYTES } else { length as usize }];
        self.fill(at, &mut piece)?;
        if checksum(at, &piece) != crc {
            return Err(damaged(at, "a piece does not match its checksum"));
        }
        self.offset += (PIECE_HEAD + piece.len()) as u64;
        if ends {
            return self.take_end(at, &piece).map(|()| false);
        }
        self.hash.update(&piece);
        self.bytes += u64::from(length);
        (self.piece, self.taken) = (piece, 0);
        Ok(true)
    }

    fn take_end(&mut self, at: u64, end: &[u8]) -> Result<(), SavedError> {
        let sha256: [u8; 32] = std::mem::take(&mut self.hash).finalize().into();
        if end[..8] != self.bytes.to_le_bytes() || end[8..] != sha256 {
            return Err(damaged(at, "the end does not match what stands before it"));
        }
        self.end = Some(Whole { bytes: self.offset, sha256 });
        Ok(())
    }

    /// Fills the buffer. A file that ends within is cut off there; `at` is where what was to be read begins.
    fn fill(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), SavedError> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(at, "the file ends within what begins here"),
            _ => SavedError::Io(error),
        })
    }
}

impl<R: Read> Read for SavedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.piece.len() && !self.next_piece().map_err(io::Error::other)? {
            return Ok(0);
        }
        let some = buffer.len().min(self.piece.len() - self.taken);
        buffer[..some].copy_from_slice(&self.piece[self.taken..self.taken + some]);
        self.taken += some;
        Ok(some)
    }
}
