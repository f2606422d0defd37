//! The protocol of a console session, one frame at a time.
//!
//! The console speaks the simple query protocol only. Like PgBouncer it takes leave of a client that
//! tries the extended one, and skips what a failed COPY may have left in flight.

use crate::command::{Access, Command, Statement};
use crate::parse::parse;
use crate::reply::{CommandError, ProtocolError};

/// The longest frame a console client may send, tag and length included: PgBouncer's default buffer,
/// which has to hold a console statement whole.
pub const FRAME_LEN_MAX: usize = 4096;

/// The tag and the length before a body.
const HEADER_LEN: usize = 5;

/// A client of the console after its login.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    access: Access,
}

/// What to do after a frame. Bytes of an answer, if any, have been appended to `out` by then.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Read the next frame.
    Continue,
    /// Run this command, then answer it.
    Run(Command),
    /// Read the next frame; this one was refused, as the answer says.
    Refused(CommandError),
    /// The client has said goodbye.
    Terminate,
    /// Send the answer, which says this, and close.
    Close(ProtocolError),
}

impl Session {
    /// A session of a user who may do what `access` says.
    pub fn new(access: Access) -> Self {
        Self { access }
    }

    /// What the user may do.
    pub fn access(self) -> Access {
        self.access
    }

    /// Takes one frame and appends the answer, unless a command has to run first.
    pub fn handle_frame(self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Step {
        if body.len() > FRAME_LEN_MAX - HEADER_LEN {
            return self.handle_long_frame(tag, out);
        }
        match Kind::of(tag) {
            Kind::Copy => Step::Continue,
            Kind::Terminate => Step::Terminate,
            Kind::Query => self.handle_query(body, out),
            Kind::Extended => close(ProtocolError::ExtendedQuery, out),
            Kind::Unsupported => close(ProtocolError::UnsupportedPacket(tag), out),
            Kind::Unknown => close(ProtocolError::UnknownPacket, out),
        }
    }

    /// Takes a frame that is longer than [`FRAME_LEN_MAX`], whose body nobody needs to keep.
    pub fn handle_long_frame(self, tag: u8, out: &mut Vec<u8>) -> Step {
        match Kind::of(tag) {
            Kind::Copy => Step::Continue,
            Kind::Terminate | Kind::Query | Kind::Extended | Kind::Unsupported => {
                close(ProtocolError::FrameTooLong, out)
            }
            Kind::Unknown => close(ProtocolError::UnknownPacket, out),
        }
    }

    fn handle_query(self, body: &[u8], out: &mut Vec<u8>) -> Step {
        // What stands behind the terminator is ignored.
        let Some(end) = body.iter().position(|&byte| byte == 0) else {
            return close(ProtocolError::UnterminatedQuery, out);
        };
        let text = String::from_utf8_lossy(&body[..end]);
        match self.access.admit(parse(&text)) {
            Ok(Statement::Run(command)) => return Step::Run(command),
            Ok(Statement::Answer(fixed)) => fixed.write(out),
            Err(error) => {
                error.write(out);
                return Step::Refused(error);
            }
        }
        Step::Continue
    }
}

/// The frontend messages, as far as the console tells them apart.
enum Kind {
    /// CopyData, CopyDone, CopyFail: a statement that failed may have left them in flight.
    Copy,
    Terminate,
    Query,
    /// Parse, Bind, Execute.
    Extended,
    /// Known, but no use here: Describe, Close, Sync, Flush, FunctionCall.
    Unsupported,
    /// PasswordMessage after the login, and everything PostgreSQL's manual does not list.
    Unknown,
}

impl Kind {
    const fn of(tag: u8) -> Self {
        match tag {
            b'd' | b'c' | b'f' => Self::Copy,
            b'X' => Self::Terminate,
            b'Q' => Self::Query,
            b'P' | b'B' | b'E' => Self::Extended,
            b'D' | b'C' | b'S' | b'H' | b'F' => Self::Unsupported,
            _ => Self::Unknown,
        }
    }
}

fn close(error: ProtocolError, out: &mut Vec<u8>) -> Step {
    error.write(out);
    Step::Close(error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::Show;

    /// The step and the answer to one frame from an admin.
    fn answer(tag: u8, body: &[u8]) -> (Step, Vec<u8>) {
        let mut out = Vec::new();
        let step = Session::new(Access::Admin).handle_frame(tag, body, &mut out);
        (step, out)
    }

    const SHOW_VERSION: &[u8] =
        b"T\x00\x00\x00 \x00\x01version\x00\x00\x00\x00\x00\x00\x00\x00\x00\
        \x00\x19\xff\xff\xff\xff\xff\xff\x00\x00D\x00\x00\x00\x1a\x00\x01\x00\x00\x00\x10PgBouncer \
        1.25.2C\x00\x00\x00\tSHOW\x00Z\x00\x00\x00\x05I";

    #[test]
    fn show_version_has_pgbouncers_bytes() {
        let (step, out) = answer(b'Q', b"show version\0");
        assert_eq!(step, Step::Continue);
        assert_eq!(out, SHOW_VERSION);
    }

    #[test]
    fn a_command_is_handed_out_unanswered() {
        let (step, out) = answer(b'Q', b"SHOW POOLS;\0");
        assert_eq!(step, Step::Run(Command::Show(Show::Pools)));
        assert!(out.is_empty());
    }

    #[test]
    fn the_extended_protocol_is_refused_in_pgbouncers_bytes() {
        for tag in *b"PBE" {
            let (step, out) = answer(tag, b"\0select 1\0\0\0");
            assert_eq!(step, Step::Close(ProtocolError::ExtendedQuery));
            assert_eq!(
                out,
                b"E\x00\x00\x00KSERROR\x00C08P01\x00Mextended query protocol not supported by \
                  admin console\x00\x00Z\x00\x00\x00\x05IE\x00\x00\x00\x1fSFATAL\x00C08P01\x00Mbad \
                  packet\x00\x00"
            );
        }
    }

    #[test]
    fn other_messages_are_refused_with_their_number() {
        for tag in *b"SHDCF" {
            let (step, out) = answer(tag, b"");
            let expected = [
                b"E\x00\x00\x00BSERROR\x00C08P01\x00Munsupported packet type for admin console: ",
                tag.to_string().as_bytes(),
                b"\x00\x00Z\x00\x00\x00\x05IE\x00\x00\x00\x1fSFATAL\x00C08P01\x00Mbad packet\x00\x00",
            ]
            .concat();
            let step_expected = Step::Close(ProtocolError::UnsupportedPacket(tag));
            assert_eq!((step, out), (step_expected, expected));
        }
    }

    #[test]
    fn copy_messages_are_skipped() {
        for tag in *b"dcf" {
            assert_eq!(answer(tag, &[1; 10_000]), (Step::Continue, Vec::new()));
        }
    }

    #[test]
    fn password_and_unknown_messages_end_the_session() {
        for tag in [b'p', b'z', b'R', b'1', 0, 0xff] {
            let (step, out) = answer(tag, b"x\0");
            assert_eq!(step, Step::Close(ProtocolError::UnknownPacket));
            assert_eq!(
                out,
                b"E\x00\x00\x00 SFATAL\x00C08P01\x00Munknown pkt\x00\x00"
            );
        }
    }

    #[test]
    fn terminate_is_not_answered() {
        assert_eq!(answer(b'X', b""), (Step::Terminate, Vec::new()));
    }

    #[test]
    fn a_query_needs_its_terminator() {
        let (step, out) = answer(b'Q', b"show version");
        assert_eq!(step, Step::Close(ProtocolError::UnterminatedQuery));
        assert_eq!(
            out,
            b"E\x00\x00\x00%SFATAL\x00C08P01\x00Mincomplete query\x00\x00"
        );
        assert_eq!(answer(b'Q', b"show version\0garbage").1, SHOW_VERSION);
    }

    #[test]
    fn a_frame_longer_than_the_buffer_ends_the_session() {
        let mut body = vec![b' '; FRAME_LEN_MAX - HEADER_LEN];
        body[..12].copy_from_slice(b"show version");
        *body.last_mut().unwrap() = 0;
        assert_eq!(answer(b'Q', &body).1, SHOW_VERSION);
        body.push(0);
        let (step, out) = answer(b'Q', &body);
        assert_eq!(step, Step::Close(ProtocolError::FrameTooLong));
        assert_eq!(
            out,
            b"E\x00\x00\x00#SFATAL\x00C08P01\x00Mincomplete pkt\x00\x00"
        );
    }

    #[test]
    fn a_stats_user_is_told_what_is_missing() {
        let mut out = Vec::new();
        let step = Session::new(Access::Stats).handle_frame(b'Q', b"show fds\0", &mut out);
        assert_eq!(step, Step::Refused(CommandError::AdminAccessNeeded));
        assert_eq!(
            out,
            b"E\x00\x00\x00(SERROR\x00C08P01\x00Madmin access needed\x00\x00Z\x00\x00\x00\x05I"
        );
    }

    #[test]
    fn settings_are_answered_with_one_cell() {
        assert_eq!(
            answer(b'Q', b"show Client_Encoding\0").1,
            b"T\x00\x00\x00(\x00\x01client_encoding\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\
              \xff\xff\xff\xff\xff\x00\x00D\x00\x00\x00\x0f\x00\x01\x00\x00\x00\x05UTF-8C\x00\x00\
              \x00\tSHOW\x00Z\x00\x00\x00\x05I"
        );
    }

    proptest! {
        #[test]
        fn no_frame_panics_and_every_query_is_answered_or_run(
            tag in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = answer(tag, &body);
            let (step, out) = answer(b'Q', &body);
            let answered = !out.is_empty();
            prop_assert_eq!(answered, !matches!(step, Step::Run(_)));
        }
    }
}
