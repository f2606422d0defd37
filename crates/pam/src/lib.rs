//! Asks PAM whether a password is right. For Linux.
//!
//! One of three crates of this project with `unsafe` in it (the others are `alloc` and `uring`), because libpam is a C library and no crate
//! for it is kept well; `docs/adr/0011-pam.md` says more. It is small, knows nothing of PostgreSQL,
//! and has one function.
//!
//! PAM's modules may block for as long as they like, and many are not made for threads: whoever
//! calls [`check`] does so from one thread that has nothing else to do.

// Elsewhere there is nothing here: constants and layouts are those of Linux-PAM.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
#![warn(missing_docs)]

mod ffi;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use zeroize::Zeroizing;

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PamError {
    /// PAM or one of its modules says no, or cannot say.
    #[error("{call}() failed: {reason}{}", listed(.complaints))]
    Call {
        /// The function that failed, such as `pam_authenticate`.
        call: &'static str,
        /// PAM's words for it.
        reason: String,
        /// What modules wanted the user to know.
        complaints: Vec<String>,
    },
    /// A text with a zero byte, which C would cut there.
    #[error("{0} contains a zero byte")]
    ZeroByte(&'static str),
}

fn listed(complaints: &[String]) -> String {
    match complaints.is_empty() {
        true => String::new(),
        false => format!(" ({})", complaints.join("; ")),
    }
}

/// Whether this is the user's password and the account may be used now. `remote_host` is where the
/// user comes from, for modules that want to know.
///
/// # Errors
/// It is not, or PAM could not find out.
pub fn check(
    service: &str,
    user: &str,
    password: &[u8],
    remote_host: &str,
) -> Result<(), PamError> {
    let text = |what, text: &str| CString::new(text).map_err(|_| PamError::ZeroByte(what));
    let (service, user) = (
        text("the service", service)?,
        text("the user's name", user)?,
    );
    let remote_host = text("the remote host", remote_host)?;
    let password = Zeroizing::new([password, b"\0"].concat());
    let password =
        CStr::from_bytes_with_nul(&password).map_err(|_| PamError::ZeroByte("the password"))?;

    let mut conversation = Conversation {
        password,
        complaints: Vec::new(),
    };
    let talk = ffi::Conv {
        conv: converse,
        data: ptr::from_mut(&mut conversation).cast(),
    };
    let mut handle = Handle::start(&service, &user, &talk)?;
    let mut result = handle.set_remote_host(&remote_host);
    if result.is_ok() {
        result = handle.authenticate();
    }
    if result.is_ok() {
        result = handle.may_come_in_now();
    }
    drop(handle);
    result.map_err(|(call, reason)| PamError::Call {
        call,
        reason,
        complaints: conversation.complaints,
    })
}

/// What the callback works with.
struct Conversation<'a> {
    password: &'a CStr,
    complaints: Vec<String>,
}

/// A transaction with PAM, ended when dropped.
struct Handle {
    raw: *mut ffi::Handle,
    /// How the last call ended; modules are told at the end.
    last: c_int,
}

type Failed = (&'static str, String);

impl Handle {
    /// `talk`, and the data that it points to, must outlive the handle.
    fn start(service: &CStr, user: &CStr, talk: &ffi::Conv) -> Result<Self, PamError> {
        let mut raw = ptr::null_mut();
        // SAFETY: the strings end with a zero byte and are copied by PAM, as is `talk` itself; the
        // data it points to is alive until `check` has dropped this handle.
        let last = unsafe { ffi::pam_start(service.as_ptr(), user.as_ptr(), talk, &raw mut raw) };
        let handle = Self { raw, last };
        match last {
            ffi::SUCCESS if !raw.is_null() => Ok(handle),
            _ => Err(PamError::Call {
                call: "pam_start",
                reason: handle.words(),
                complaints: Vec::new(),
            }),
        }
    }

    fn set_remote_host(&mut self, host: &CStr) -> Result<(), Failed> {
        // SAFETY: the handle is open, and PAM copies the string.
        self.last = unsafe { ffi::pam_set_item(self.raw, ffi::RHOST, host.as_ptr().cast()) };
        self.result("pam_set_item")
    }

    fn authenticate(&mut self) -> Result<(), Failed> {
        // SAFETY: the handle is open.
        self.last = unsafe { ffi::pam_authenticate(self.raw, ffi::SILENT) };
        self.result("pam_authenticate")
    }

    /// Whether the account has expired, may be used at this hour, and the like.
    fn may_come_in_now(&mut self) -> Result<(), Failed> {
        // SAFETY: the handle is open.
        self.last = unsafe { ffi::pam_acct_mgmt(self.raw, ffi::SILENT) };
        self.result("pam_acct_mgmt")
    }

    fn result(&self, call: &'static str) -> Result<(), Failed> {
        match self.last {
            ffi::SUCCESS => Ok(()),
            _ => Err((call, self.words())),
        }
    }

    /// PAM's words for how the last call ended.
    fn words(&self) -> String {
        // SAFETY: Linux-PAM does not look at the handle, which may be null here, and gives a
        // string that lives as long as the program.
        let words = unsafe { ffi::pam_strerror(self.raw, self.last) };
        if words.is_null() {
            return format!("error {}", self.last);
        }
        // SAFETY: not null, and a C string.
        unsafe { CStr::from_ptr(words) }
            .to_string_lossy()
            .into_owned()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: the handle is open, and nothing uses it afterwards. What it returns is of no
            // use: the login has been decided.
            unsafe { ffi::pam_end(self.raw, self.last) };
        }
    }
}

/// Answers what modules ask: the password where something must not be shown while it is typed,
/// nothing where anything else is asked.
extern "C" fn converse(
    count: c_int,
    messages: *const *const ffi::Message,
    responses: *mut *mut ffi::Response,
    data: *mut c_void,
) -> c_int {
    let Some(count) = usize::try_from(count).ok().filter(|n| (1..=32).contains(n)) else {
        return ffi::CONV_ERR;
    };
    if messages.is_null() || responses.is_null() || data.is_null() {
        return ffi::CONV_ERR;
    }
    // SAFETY: `check` passed a pointer to a `Conversation` that it does not touch while PAM runs,
    // and PAM hands it back unchanged.
    let conversation = unsafe { &mut *data.cast::<Conversation<'_>>() };
    let mut answers = Vec::with_capacity(count);
    for index in 0..count {
        // SAFETY: Linux-PAM passes an array of `count` pointers to messages.
        let message = unsafe { (*messages.add(index)).as_ref() };
        answers.push(message.map_or(ptr::null(), |message| answer(conversation, message)));
    }
    // SAFETY: `answers` are null or C strings that live until this returns.
    match unsafe { hand_over(&answers) } {
        Some(array) => {
            // SAFETY: PAM passed a place for the pointer.
            unsafe { *responses = array };
            ffi::SUCCESS
        }
        None => ffi::BUF_ERR,
    }
}

/// The answer to one message; null is none.
fn answer(conversation: &mut Conversation<'_>, message: &ffi::Message) -> *const c_char {
    match message.style {
        ffi::PROMPT_ECHO_OFF => conversation.password.as_ptr(),
        ffi::ERROR_MSG if !message.text.is_null() => {
            // SAFETY: not null, and a C string by PAM's contract.
            let text = unsafe { CStr::from_ptr(message.text) };
            conversation
                .complaints
                .push(text.to_string_lossy().into_owned());
            ptr::null()
        }
        _ => ptr::null(),
    }
}

/// Copies the answers to memory that PAM will free with `free`. `None`: there is no memory.
///
/// # Safety
/// Each answer must be null or a C string.
unsafe fn hand_over(answers: &[*const c_char]) -> Option<*mut ffi::Response> {
    // SAFETY: the size is not zero. Zeroed memory is an array of responses without text.
    let array = unsafe { libc::calloc(answers.len(), size_of::<ffi::Response>()) };
    let array = array.cast::<ffi::Response>();
    if array.is_null() {
        return None;
    }
    for (index, text) in answers
        .iter()
        .enumerate()
        .filter(|(_, text)| !text.is_null())
    {
        // SAFETY: a C string, by this function's contract.
        let copy = unsafe { libc::strdup(*text) };
        if copy.is_null() {
            // SAFETY: the array was made above and has been given to nobody.
            unsafe { release(array, index) };
            return None;
        }
        // SAFETY: the array has as many places as there are answers.
        unsafe { (*array.add(index)).text = copy };
    }
    Some(array)
}

/// Frees an array whose first `used` places may have texts.
///
/// # Safety
/// It must come from `hand_over`, and nobody else may have it.
unsafe fn release(array: *mut ffi::Response, used: usize) {
    for index in 0..used {
        // SAFETY: the place is inside the array; its text is null or from `strdup`.
        unsafe { libc::free((*array.add(index)).text.cast()) };
    }
    // SAFETY: it is from `calloc`.
    unsafe { libc::free(array.cast()) };
}
