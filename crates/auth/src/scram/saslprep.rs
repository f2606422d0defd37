//! SASLprep (RFC 4013) with PostgreSQL's way out: a password that cannot be prepared is used as it
//! is, because PostgreSQL allows passwords in any encoding.

use stringprep::tables;
use zeroize::Zeroizing;

/// The bytes that are hashed for this password.
pub(crate) fn prepare(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let raw = || Zeroizing::new(password.to_vec());
    let Ok(text) = std::str::from_utf8(password) else {
        return raw();
    };
    if text.is_ascii() || stops_postgres(text) {
        return raw();
    }
    match stringprep::saslprep(text) {
        // Nothing but characters that are mapped to nothing: PostgreSQL keeps the original.
        Ok(prepared) if prepared.is_empty() => raw(),
        Ok(prepared) => Zeroizing::new(prepared.into_owned().into_bytes()),
        Err(_) => raw(),
    }
}

/// PostgreSQL looks for characters that must not be there *before* normalisation, the RFC and our
/// library after it. Where normalisation would replace such a character, only PostgreSQL gives up
/// and keeps the original.
fn stops_postgres(text: &str) -> bool {
    let mapped = || {
        text.chars().filter(|c| {
            !tables::non_ascii_space_character(*c) && !tables::commonly_mapped_to_nothing(*c)
        })
    };
    let right_to_left = mapped().any(tables::bidi_r_or_al);
    let ends_right_to_left = || {
        let ends = [mapped().next(), mapped().next_back()];
        ends.into_iter().flatten().all(tables::bidi_r_or_al)
    };
    mapped().any(|c| is_prohibited(c) || tables::unassigned_code_point(c))
        || (right_to_left && (mapped().any(tables::bidi_l) || !ends_right_to_left()))
}

/// RFC 4013, section 2.3, without the spaces that have been mapped.
fn is_prohibited(c: char) -> bool {
    tables::ascii_control_character(c)
        || tables::non_ascii_control_character(c)
        || tables::private_use(c)
        || tables::non_character_code_point(c)
        || tables::inappropriate_for_plain_text(c)
        || tables::inappropriate_for_canonical_representation(c)
        || tables::change_display_properties_or_deprecated(c)
        || tables::tagging_character(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_rfc() {
        assert_eq!(prepare("I\u{AD}X".as_bytes()).as_slice(), b"IX");
        assert_eq!(prepare(b"user").as_slice(), b"user");
        assert_eq!(prepare("\u{AA}".as_bytes()).as_slice(), b"a");
        assert_eq!(prepare("\u{2168}".as_bytes()).as_slice(), b"IX");
    }

    #[test]
    fn what_cannot_be_prepared_stays_as_it_is() {
        for password in [
            b"\x07".as_slice(),
            b"\xFF\xFE",
            "\u{627}1".as_bytes(),
            "\u{AD}".as_bytes(),
            // Unassigned in Unicode 3.2, and normalised to "A" by later versions.
            "\u{1D2C}".as_bytes(),
            // Prohibited, and normalised to another accent that is not.
            "a\u{340}".as_bytes(),
        ] {
            assert_eq!(prepare(password).as_slice(), password);
        }
    }
}
