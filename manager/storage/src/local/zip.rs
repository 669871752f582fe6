//! Zip archives as they are written: sizes and checksums follow each file (APPNOTE 4.3.9),
//! all in 64 bits, so that neither sizes nor counts have a limit worth naming.

use std::io::{self, Read, Write};

use chrono::{DateTime, Datelike, Timelike};
use flate2::Crc;

/// Files may have names in UTF-8, and sizes behind their content.
const FLAGS: u16 = (1 << 11) | (1 << 3);
/// The version of the format that has 64-bit sizes.
const VERSION: u16 = 45;
/// The same, made on Unix: so that permissions mean what they do there.
const MADE_BY: u16 = (3 << 8) | VERSION;
const BUFFER: usize = 64 << 10;

/// Writes an archive whose files are stored as they are.
pub struct ZipWriter<W> {
    out: W,
    position: u64,
    entries: Vec<Entry>,
}

struct Entry {
    path: String,
    offset: u64,
    size: u64,
    crc: u32,
    mode: u32,
    time: u32,
}

impl<W: Write> ZipWriter<W> {
    pub fn new(out: W) -> Self {
        Self { out, position: 0, entries: Vec::new() }
    }

    /// Adds a file.
    pub fn file(
        &mut self,
        path: &str,
        mode: u32,
        modified: i64,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        let offset = self.local_header(path, modified)?;
        let (mut crc, mut size) = (Crc::new(), 0u64);
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = content.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            crc.update(&buffer[..length]);
            self.write(&buffer[..length])?;
            size += length as u64;
        }
        self.end(path, offset, size, crc.sum(), 0o100_000 | mode, modified)
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: &str, modified: i64) -> io::Result<()> {
        let path = format!("{path}/");
        let offset = self.local_header(&path, modified)?;
        self.end(&path, offset, 0, 0, 0o040_755, modified)
    }

    /// Writes the list of what was added.
    pub fn finish(mut self) -> io::Result<W> {
        let begin = self.position;
        for entry in std::mem::take(&mut self.entries) {
            let mut header = Vec::new();
            header.extend(0x0201_4b50_u32.to_le_bytes());
            header.extend(MADE_BY.to_le_bytes());
            header.extend(VERSION.to_le_bytes());
            header.extend(FLAGS.to_le_bytes());
            header.extend(0u16.to_le_bytes());
            header.extend(entry.time.to_le_bytes());
            header.extend(entry.crc.to_le_bytes());
            // Both sizes: see the extra field.
            header.extend([0xff; 8]);
            header.extend(length(&entry.path)?.to_le_bytes());
            header.extend(28u16.to_le_bytes());
            // No comment, the first disk, no internal attributes.
            header.extend([0; 6]);
            header.extend((entry.mode << 16).to_le_bytes());
            header.extend([0xff; 4]);
            header.extend(entry.path.as_bytes());
            header.extend(1u16.to_le_bytes());
            header.extend(24u16.to_le_bytes());
            for number in [entry.size, entry.size, entry.offset] {
                header.extend(number.to_le_bytes());
            }
            self.write(&header)?;
            self.entries.push(entry);
        }
        let (end, count) = (self.position, self.entries.len() as u64);
        let mut tail = Vec::new();
        tail.extend(0x0606_4b50_u32.to_le_bytes());
        tail.extend(44u64.to_le_bytes());
        tail.extend(MADE_BY.to_le_bytes());
        tail.extend(VERSION.to_le_bytes());
        tail.extend([0; 8]);
        for number in [count, count, end - begin, begin] {
            tail.extend(number.to_le_bytes());
        }
        // Where that is, for readers that begin at the end.
        tail.extend(0x0706_4b50_u32.to_le_bytes());
        tail.extend(0u32.to_le_bytes());
        tail.extend(end.to_le_bytes());
        tail.extend(1u32.to_le_bytes());
        tail.extend(0x0605_4b50_u32.to_le_bytes());
        tail.extend([0; 4]);
        tail.extend([0xff; 12]);
        tail.extend(0u16.to_le_bytes());
        self.write(&tail)?;
        Ok(self.out)
    }

    fn local_header(&mut self, path: &str, modified: i64) -> io::Result<u64> {
        let offset = self.position;
        let mut header = Vec::new();
        header.extend(0x0403_4b50_u32.to_le_bytes());
        header.extend(VERSION.to_le_bytes());
        header.extend(FLAGS.to_le_bytes());
        header.extend(0u16.to_le_bytes());
        header.extend(dos_time(modified).to_le_bytes());
        header.extend(0u32.to_le_bytes());
        header.extend([0xff; 8]);
        header.extend(length(path)?.to_le_bytes());
        header.extend(20u16.to_le_bytes());
        header.extend(path.as_bytes());
        // Its presence says that the sizes behind the content have 64 bits.
        header.extend(1u16.to_le_bytes());
        header.extend(16u16.to_le_bytes());
        header.extend([0; 16]);
        self.write(&header)?;
        Ok(offset)
    }

    fn end(
        &mut self,
        path: &str,
        offset: u64,
        size: u64,
        crc: u32,
        mode: u32,
        modified: i64,
    ) -> io::Result<()> {
        let mut descriptor = Vec::new();
        descriptor.extend(0x0807_4b50_u32.to_le_bytes());
        descriptor.extend(crc.to_le_bytes());
        descriptor.extend(size.to_le_bytes());
        descriptor.extend(size.to_le_bytes());
        self.write(&descriptor)?;
        let time = dos_time(modified);
        self.entries.push(Entry { path: path.to_owned(), offset, size, crc, mode, time });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

fn length(path: &str) -> io::Result<u16> {
    u16::try_from(path.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))
}

/// Time and date in the halves of a number, as the format has them since 1980.
fn dos_time(seconds: i64) -> u32 {
    let time = DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    let Ok(year) = u32::try_from(time.year() - 1980) else { return (1 << 21) | (1 << 16) };
    let date = (year.min(127) << 9) | (time.month() << 5) | time.day();
    let clock = (time.hour() << 11) | (time.minute() << 5) | (time.second() / 2);
    (date << 16) | clock
}
