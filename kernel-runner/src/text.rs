//! Bytes of a stream to text, piece by piece.

/// How many bytes of text `n` bytes may become: each byte that is not UTF-8 turns into a
/// replacement character of three bytes, and so may up to three that were held back.
pub const fn worst_case(n: usize) -> usize {
    (n + 3) * 3
}

/// Decodes UTF-8 that is cut anywhere. A sequence cut at the end of a piece is kept for
/// the next one; what is not UTF-8 becomes U+FFFD.
#[derive(Default)]
pub struct Utf8Decoder {
    /// The beginning of a sequence, at most three bytes.
    tail: Vec<u8>,
}

impl Utf8Decoder {
    /// The text of the next piece.
    pub fn push(&mut self, piece: &[u8]) -> String {
        if self.tail.is_empty() {
            return self.decode(piece);
        }
        let mut joined = std::mem::take(&mut self.tail);
        joined.extend_from_slice(piece);
        self.decode(&joined)
    }

    /// The text of what was held back, when nothing follows.
    pub fn finish(&mut self) -> String {
        let tail = std::mem::take(&mut self.tail);
        String::from_utf8_lossy(&tail).into_owned()
    }

    fn decode(&mut self, mut rest: &[u8]) -> String {
        let mut text = String::with_capacity(rest.len());
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    return text;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    match error.error_len() {
                        Some(length) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &after[length..];
                        }
                        None => {
                            self.tail.extend_from_slice(after);
                            return text;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_cut_anywhere_is_joined() {
        let text = "aé한🙂z";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let bytes = text.as_bytes();
                let mut decoder = Utf8Decoder::default();
                let mut got = decoder.push(&bytes[..first]);
                got += &decoder.push(&bytes[first..second]);
                got += &decoder.push(&bytes[second..]);
                got += &decoder.finish();
                assert_eq!(got, text, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn what_is_not_utf8_is_replaced_and_bounded() {
        let mut decoder = Utf8Decoder::default();
        let garbage = [0xff_u8, 0xf0, 0x9f, b'a', 0xc3];
        let text = decoder.push(&garbage) + &decoder.finish();
        assert_eq!(text, "\u{fffd}\u{fffd}a\u{fffd}");
        let worst = vec![0xff; 1000];
        assert!(decoder.push(&worst).len() <= worst_case(worst.len()));
    }
}
