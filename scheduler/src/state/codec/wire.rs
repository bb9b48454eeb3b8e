//! Protocol buffers' wire format, as much of it as writing and reading a record without its messages takes: numbers, texts, records in records.
//! Knows no record.

use supercloud_proto::problem::Problems;

use super::entry::wrong;

/// Longest number in bytes.
const MAX_VARINT: usize = 10;
/// Kinds of fields.
const NUMBER: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// Appends fields to what is written. A field with nothing in it is left out, as the format wants it.
pub(super) trait Fields {
    /// A number as it is written anywhere.
    fn varint(&mut self, number: u64);
    /// A number.
    fn number(&mut self, field: u32, number: impl Into<u64>);
    /// A text.
    fn text(&mut self, field: u32, text: &str);
    /// A record within the record; written also when it is empty.
    fn record(&mut self, field: u32, write: impl FnOnce(&mut Self));
}

impl Fields for Vec<u8> {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }

    fn number(&mut self, field: u32, number: impl Into<u64>) {
        let number = number.into();
        if number != 0 {
            self.varint(u64::from(field) << 3 | NUMBER);
            self.varint(number);
        }
    }

    fn text(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.varint(u64::from(field) << 3 | BYTES);
            self.varint(text.len() as u64);
            self.extend_from_slice(text.as_bytes());
        }
    }

    fn record(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.varint(u64::from(field) << 3 | BYTES);
        let start = self.len();
        write(self);
        prefix_length(self, start);
    }
}

/// Puts the length of what stands from `start` on before it.
pub(super) fn prefix_length(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    out.varint(length as u64);
    let digits = out.len() - start - length;
    out[start..].rotate_right(digits);
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a kind that no record of ours has.
    Other,
}

impl<'a> Value<'a> {
    /// As a number; 0 where it is none, which then is a field of another kind and reads as missing.
    pub(super) fn number(self) -> u64 {
        if let Self::Number(number) = self { number } else { 0 }
    }

    /// As the bytes of a record.
    pub(super) fn bytes(self) -> &'a [u8] {
        if let Self::Bytes(bytes) = self { bytes } else { &[] }
    }

    /// As a text.
    pub(super) fn text(self) -> Result<&'a str, Problems> {
        std::str::from_utf8(self.bytes()).map_err(|error| wrong("record", "a text", error))
    }
}

/// The fields of a record, one after the other.
pub(super) struct Reading<'a>(pub(super) &'a [u8]);

impl<'a> Reading<'a> {
    fn varint(&mut self) -> Result<u64, Problems> {
        let (number, length) = varint(self.0).ok_or_else(cut_off)?;
        self.0 = &self.0[length..];
        Ok(number)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Problems> {
        let (taken, rest) = usize::try_from(length)
            .ok()
            .and_then(|length| self.0.split_at_checked(length))
            .ok_or_else(cut_off)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next field; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Problems> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            NUMBER => Value::Number(self.varint()?),
            BYTES => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            FIXED_64 => self.take(8).map(|_| Value::Other)?,
            FIXED_32 => self.take(4).map(|_| Value::Other)?,
            kind => return Err(wrong("record", "a field of a known kind", kind)),
        };
        Ok(Some((key >> 3, value)))
    }
}

/// The number at the start of some bytes, and its length; `None` where it goes on beyond them, or is too long.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0u64;
    for (place, byte) in bytes.iter().take(MAX_VARINT).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((number, place + 1));
        }
    }
    None
}

fn cut_off() -> Problems {
    wrong("record", "a whole record", "one that is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_texts_and_records_read_back() {
        for number in [1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let long = "x".repeat(200);
            let mut out = Vec::new();
            out.number(1, number);
            out.number(2, 0u64);
            out.text(3, &long);
            out.record(4, |out| out.record(300, |out| out.text(1, &long)));
            let mut reading = Reading(&out);
            assert_eq!(reading.next().unwrap(), Some((1, Value::Number(number))));
            let (field, value) = reading.next().unwrap().unwrap();
            assert_eq!((field, value.text().unwrap()), (3, long.as_str()));
            let (_, outer) = reading.next().unwrap().unwrap();
            let (field, inner) = Reading(outer.bytes()).next().unwrap().unwrap();
            assert_eq!(field, 300);
            assert_eq!(Reading(inner.bytes()).next().unwrap().unwrap().1.text().unwrap(), long);
            assert_eq!(reading.next().unwrap(), None);
            for end in 1..out.len() {
                let mut cut = Reading(&out[..end]);
                while let Ok(Some(_)) = cut.next() {}
            }
        }
        assert!(Reading(&[0xff; 11]).next().is_err() && Reading(&[0x0b]).next().is_err());
    }
}
