//! The sftp server: a process of its own per transfer, like OpenSSH's, that runs as the
//! user and so may do what the user may. It speaks version 3 of the protocol
//! (draft-ietf-secsh-filexfer-02) on standard input and output, with the extensions that
//! OpenSSH's clients use.
//!
//! Written here because a file's name is bytes: the library for this protocol makes text of
//! it, and then a file with another name cannot be fetched. Blocking, because nobody but
//! the one client waits for it.

mod attributes;
mod listing;
mod server;
mod wire;

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use self::server::Server;
use self::wire::{MAX_PACKET, Reader};

/// Serves standard input until its end and returns the exit code of the process.
pub fn main() -> i32 {
    let input = BufReader::with_capacity(MAX_PACKET, io::stdin().lock());
    let output = BufWriter::with_capacity(MAX_PACKET, io::stdout().lock());
    match serve(input, output) {
        Ok(()) => 0,
        Err(error) => {
            crate::log::line(format_args!("sftp: {error}"));
            1
        }
    }
}

/// Answers one request after the other.
fn serve(mut input: BufReader<impl Read>, mut output: impl Write) -> io::Result<()> {
    let mut server = Server::default();
    let mut packet = Vec::new();
    let mut answer = Vec::new();
    loop {
        if input.buffer().is_empty() {
            // Answers to requests that came together leave together.
            output.flush()?;
            if input.fill_buf()?.is_empty() {
                return Ok(());
            }
        }
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 || length > MAX_PACKET {
            let message = format!("a packet of {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        packet.resize(length, 0);
        input.read_exact(&mut packet)?;
        answer.clear();
        server.answer(Reader::new(&packet), &mut answer);
        output.write_all(&u32::try_from(answer.len()).unwrap_or(u32::MAX).to_be_bytes())?;
        output.write_all(&answer)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(packets: &[u8]) -> (io::Result<()>, Vec<u8>) {
        let mut output = Vec::new();
        let result = serve(BufReader::new(packets), &mut output);
        (result, output)
    }

    #[test]
    fn broken_streams_end_without_harm() {
        assert!(outcome(b"").0.is_ok());
        assert!(outcome(b"\0\0").0.is_err(), "cut in a length");
        assert!(outcome(b"\0\0\0\x05\x01").0.is_err(), "cut in a packet");
        assert!(outcome(b"\0\0\0\0").0.is_err(), "an empty packet");
        let huge = outcome(b"\xff\xff\xff\xffx").0.unwrap_err();
        assert_eq!(huge.to_string(), "a packet of 4294967295 bytes");
    }

    #[test]
    fn nonsense_is_answered_and_the_next_request_too() {
        // An `open` without its fields, an unknown type, then the version.
        let (result, output) =
            outcome(b"\0\0\0\x05\x03\0\0\0\x07\0\0\0\x05\x63\0\0\0\x08\0\0\0\x05\x01\0\0\0\x03");
        result.unwrap();
        let status = |id: u8, code: u8| [101, 0, 0, 0, id, 0, 0, 0, code];
        assert_eq!(output[4..13], status(7, 5));
        let second = 4 + usize::from(output[3]);
        assert_eq!(output[second + 4..second + 13], status(8, 8));
        let third = second + 4 + usize::from(output[second + 3]);
        assert_eq!(output[third + 4..third + 9], [2, 0, 0, 0, 3]);
    }
}
