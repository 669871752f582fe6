//! The terminal a client asks for.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use russh::Pty as Mode;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
};

use crate::process::{Pty, Size};

/// What the client wants.
pub struct Request {
    /// Its kind, for `TERM`.
    pub term: String,
    /// In characters.
    pub size: Size,
    /// Settings of the client's own terminal.
    pub modes: Vec<(Mode, u32)>,
}

impl Request {
    /// Makes the terminal; returns the program's end too.
    ///
    /// # Errors
    /// See [`Pty::open`].
    pub fn open(&self) -> io::Result<(Pty, OwnedFd)> {
        // This process is the user already, so the terminal is the user's.
        let (pty, theirs) = Pty::open(None, self.size)?;
        let mut settings = rustix::termios::tcgetattr(theirs.as_fd())?;
        for (mode, value) in &self.modes {
            apply(*mode, *value, &mut settings);
        }
        rustix::termios::tcsetattr(theirs.as_fd(), OptionalActions::Now, &settings)?;
        Ok((pty, theirs))
    }
}

/// Applies one setting (RFC 4254, section 8). Those that this system has not are left out.
fn apply(mode: Mode, value: u32, settings: &mut Termios) {
    let on = value != 0;
    if let Some(index) = special_code(mode) {
        // 255 says that no key does this.
        settings.special_codes[index] = if value == 255 { 0 } else { value as u8 };
        return;
    }
    let input = match mode {
        Mode::IGNPAR => InputModes::IGNPAR,
        Mode::PARMRK => InputModes::PARMRK,
        Mode::INPCK => InputModes::INPCK,
        Mode::ISTRIP => InputModes::ISTRIP,
        Mode::INLCR => InputModes::INLCR,
        Mode::IGNCR => InputModes::IGNCR,
        Mode::ICRNL => InputModes::ICRNL,
        Mode::IUCLC => InputModes::IUCLC,
        Mode::IXON => InputModes::IXON,
        Mode::IXANY => InputModes::IXANY,
        Mode::IXOFF => InputModes::IXOFF,
        Mode::IMAXBEL => InputModes::IMAXBEL,
        Mode::IUTF8 => InputModes::IUTF8,
        _ => InputModes::empty(),
    };
    settings.input_modes.set(input, on);
    let local = match mode {
        Mode::ISIG => LocalModes::ISIG,
        Mode::ICANON => LocalModes::ICANON,
        Mode::XCASE => LocalModes::XCASE,
        Mode::ECHO => LocalModes::ECHO,
        Mode::ECHOE => LocalModes::ECHOE,
        Mode::ECHOK => LocalModes::ECHOK,
        Mode::ECHONL => LocalModes::ECHONL,
        Mode::NOFLSH => LocalModes::NOFLSH,
        Mode::TOSTOP => LocalModes::TOSTOP,
        Mode::IEXTEN => LocalModes::IEXTEN,
        Mode::ECHOCTL => LocalModes::ECHOCTL,
        Mode::ECHOKE => LocalModes::ECHOKE,
        Mode::PENDIN => LocalModes::PENDIN,
        _ => LocalModes::empty(),
    };
    settings.local_modes.set(local, on);
    let output = match mode {
        Mode::OPOST => OutputModes::OPOST,
        Mode::OLCUC => OutputModes::OLCUC,
        Mode::ONLCR => OutputModes::ONLCR,
        Mode::OCRNL => OutputModes::OCRNL,
        Mode::ONOCR => OutputModes::ONOCR,
        Mode::ONLRET => OutputModes::ONLRET,
        _ => OutputModes::empty(),
    };
    settings.output_modes.set(output, on);
    let control = match mode {
        Mode::PARENB => ControlModes::PARENB,
        Mode::PARODD => ControlModes::PARODD,
        _ => ControlModes::empty(),
    };
    settings.control_modes.set(control, on);
}

fn special_code(mode: Mode) -> Option<SpecialCodeIndex> {
    Some(match mode {
        Mode::VINTR => SpecialCodeIndex::VINTR,
        Mode::VQUIT => SpecialCodeIndex::VQUIT,
        Mode::VERASE => SpecialCodeIndex::VERASE,
        Mode::VKILL => SpecialCodeIndex::VKILL,
        Mode::VEOF => SpecialCodeIndex::VEOF,
        Mode::VEOL => SpecialCodeIndex::VEOL,
        Mode::VEOL2 => SpecialCodeIndex::VEOL2,
        Mode::VSTART => SpecialCodeIndex::VSTART,
        Mode::VSTOP => SpecialCodeIndex::VSTOP,
        Mode::VSUSP => SpecialCodeIndex::VSUSP,
        Mode::VREPRINT => SpecialCodeIndex::VREPRINT,
        Mode::VWERASE => SpecialCodeIndex::VWERASE,
        Mode::VLNEXT => SpecialCodeIndex::VLNEXT,
        Mode::VDISCARD => SpecialCodeIndex::VDISCARD,
        _ => return None,
    })
}
