//! What of `<security/pam_appl.h>` is used, as Linux-PAM has it.

use std::ffi::{c_char, c_int, c_void};

pub(crate) const SUCCESS: c_int = 0;
pub(crate) const BUF_ERR: c_int = 5;
pub(crate) const CONV_ERR: c_int = 19;

/// The item that says where a user comes from.
pub(crate) const RHOST: c_int = 4;
/// Modules shall not talk more than they must.
pub(crate) const SILENT: c_int = 0x8000;

pub(crate) const PROMPT_ECHO_OFF: c_int = 1;
pub(crate) const ERROR_MSG: c_int = 3;

/// `pam_handle_t`, of which nobody sees the inside.
#[repr(C)]
pub(crate) struct Handle {
    _opaque: [u8; 0],
}

/// `struct pam_message`.
#[repr(C)]
pub(crate) struct Message {
    pub(crate) style: c_int,
    pub(crate) text: *const c_char,
}

/// `struct pam_response`.
#[repr(C)]
pub(crate) struct Response {
    pub(crate) text: *mut c_char,
    pub(crate) _code: c_int,
}

/// `struct pam_conv`.
#[repr(C)]
pub(crate) struct Conv {
    pub(crate) conv: extern "C" fn(
        count: c_int,
        messages: *const *const Message,
        responses: *mut *mut Response,
        data: *mut c_void,
    ) -> c_int,
    pub(crate) data: *mut c_void,
}

// By its full name, which every installation has; the one without a number comes with the headers.
#[link(name = "libpam.so.0", kind = "dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    pub(crate) fn pam_start(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conv,
        handle: *mut *mut Handle,
    ) -> c_int;
    pub(crate) fn pam_set_item(handle: *mut Handle, item: c_int, value: *const c_void) -> c_int;
    pub(crate) fn pam_authenticate(handle: *mut Handle, flags: c_int) -> c_int;
    pub(crate) fn pam_acct_mgmt(handle: *mut Handle, flags: c_int) -> c_int;
    pub(crate) fn pam_end(handle: *mut Handle, status: c_int) -> c_int;
    pub(crate) fn pam_strerror(handle: *mut Handle, code: c_int) -> *const c_char;
}
