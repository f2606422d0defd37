//! The program's allocator. A login is fifty allocations, and an idle client is little else, so which
//! one it is can be measured (ADR 16).

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay` of mimalloc 2, for which its bindings have no name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Lets the allocator give pages back to the system at once when nothing lies in them any more. By
/// itself it does so with the next page that comes free some time later, and after a crowd has left there is
/// none. To be called before there is a second thread.
#[expect(unsafe_code, reason = "mimalloc is a C library")]
pub fn give_back_at_once() {
    // SAFETY: options must not be set by two threads at a time, and the number is one of an option.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "mimalloc is a C library")]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: nothing is changed.
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(delay(), 10, "milliseconds, mimalloc's default");
        give_back_at_once();
        assert_eq!(delay(), 0);
    }
}
