//! What goes over the stream of a [`StreamTarget::Terminal`](super::StreamTarget).
//!
//! The runner sends the number of the first byte of output that follows (`u64`, big
//! endian; bytes count from 0 over the terminal's life), then the output as it is, for
//! ever. A viewer that knows how much it has seen asks for what follows, and so misses
//! and repeats nothing; what is older than the runner keeps is skipped.
//!
//! The viewer sends frames: one byte that says what, a `u32` length in big endian, and
//! that many bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::FrameError;

/// Longest piece of input in one frame; longer input is cut into several.
pub const MAX_INPUT: usize = 64 << 10;

const INPUT: u8 = 0;
const RESIZE: u8 = 1;
const HEADER: usize = 5;

/// What a viewer sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TerminalInput {
    /// Bytes as if typed; at most [`MAX_INPUT`].
    Input(Bytes),
    /// The terminal's new size in characters.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters a line.
        cols: u16,
    },
}

/// Encodes and decodes [`TerminalInput`].
#[derive(Debug, Default)]
pub struct TerminalCodec;

impl Decoder for TerminalCodec {
    type Item = TerminalInput;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<TerminalInput>, FrameError> {
        let Some(&[kind, a, b, c, d]) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MAX_INPUT {
            return Err(FrameError::TooLarge(length));
        }
        if buffer.len() < HEADER + length {
            buffer.reserve(HEADER + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(HEADER);
        let mut payload = buffer.split_to(length).freeze();
        match (kind, length) {
            (INPUT, _) => Ok(Some(TerminalInput::Input(payload))),
            (RESIZE, 4) => {
                let (rows, cols) = (payload.get_u16(), payload.get_u16());
                Ok(Some(TerminalInput::Resize { rows, cols }))
            }
            _ => Err(FrameError::Malformed(format!("terminal input of kind {kind}"))),
        }
    }
}

impl Encoder<TerminalInput> for TerminalCodec {
    type Error = FrameError;

    fn encode(&mut self, input: TerminalInput, buffer: &mut BytesMut) -> Result<(), FrameError> {
        match input {
            TerminalInput::Input(bytes) if bytes.len() > MAX_INPUT => {
                return Err(FrameError::TooLarge(bytes.len()));
            }
            TerminalInput::Input(bytes) => {
                buffer.put_u8(INPUT);
                buffer.put_u32(bytes.len() as u32);
                buffer.extend_from_slice(&bytes);
            }
            TerminalInput::Resize { rows, cols } => {
                buffer.put_u8(RESIZE);
                buffer.put_u32(4);
                buffer.put_u16(rows);
                buffer.put_u16(cols);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_survives_being_cut_anywhere() {
        let sent = vec![
            TerminalInput::Input(Bytes::from_static(b"ls\n")),
            TerminalInput::Resize { rows: 40, cols: 120 },
            TerminalInput::Input(Bytes::new()),
        ];
        let mut whole = BytesMut::new();
        for input in sent.clone() {
            TerminalCodec.encode(input, &mut whole).expect("encode");
        }
        for cut in 0..whole.len() {
            let mut buffer = BytesMut::from(&whole[..cut]);
            let mut got = Vec::new();
            while let Some(input) = TerminalCodec.decode(&mut buffer).expect("decode") {
                got.push(input);
            }
            buffer.extend_from_slice(&whole[cut..]);
            while let Some(input) = TerminalCodec.decode(&mut buffer).expect("decode") {
                got.push(input);
            }
            assert_eq!(got, sent, "cut at {cut}");
        }
    }
}
