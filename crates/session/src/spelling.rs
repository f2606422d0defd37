//! How PostgreSQL spells the value of a parameter that a client has set in its own way, as far as that
//! can be known without a server: it reports its own spelling at the login.

/// PostgreSQL's names of encodings.
const ENCODINGS: [&str; 42] = [
    "SQL_ASCII",
    "EUC_JP",
    "EUC_CN",
    "EUC_KR",
    "EUC_TW",
    "EUC_JIS_2004",
    "UTF8",
    "MULE_INTERNAL",
    "LATIN1",
    "LATIN2",
    "LATIN3",
    "LATIN4",
    "LATIN5",
    "LATIN6",
    "LATIN7",
    "LATIN8",
    "LATIN9",
    "LATIN10",
    "WIN1256",
    "WIN1258",
    "WIN866",
    "WIN874",
    "KOI8R",
    "WIN1251",
    "WIN1252",
    "ISO_8859_5",
    "ISO_8859_6",
    "ISO_8859_7",
    "ISO_8859_8",
    "WIN1250",
    "WIN1253",
    "WIN1254",
    "WIN1255",
    "WIN1257",
    "KOI8U",
    "SJIS",
    "BIG5",
    "GBK",
    "UHC",
    "GB18030",
    "JOHAB",
    "SHIFT_JIS_2004",
];

/// Other names that it takes for them, without what is no letter and no digit ("Character Set Support",
/// table of supported character sets).
const ALIASES: [(&str, &str); 30] = [
    ("unicode", "UTF8"),
    ("iso88591", "LATIN1"),
    ("iso88592", "LATIN2"),
    ("iso88593", "LATIN3"),
    ("iso88594", "LATIN4"),
    ("iso88599", "LATIN5"),
    ("iso885910", "LATIN6"),
    ("iso885913", "LATIN7"),
    ("iso885914", "LATIN8"),
    ("iso885915", "LATIN9"),
    ("iso885916", "LATIN10"),
    ("windows1250", "WIN1250"),
    ("windows1251", "WIN1251"),
    ("windows1252", "WIN1252"),
    ("windows1253", "WIN1253"),
    ("windows1254", "WIN1254"),
    ("windows1255", "WIN1255"),
    ("windows1256", "WIN1256"),
    ("windows1257", "WIN1257"),
    ("windows1258", "WIN1258"),
    ("windows866", "WIN866"),
    ("windows874", "WIN874"),
    ("windows932", "SJIS"),
    ("windows936", "GBK"),
    ("windows949", "UHC"),
    ("windows950", "BIG5"),
    ("koi8", "KOI8R"),
    ("win", "WIN1251"),
    ("shiftjis", "SJIS"),
    ("mskanji", "SJIS"),
];

/// The value of a parameter as PostgreSQL reports it; `None` if that is not known here, or it is as
/// given.
pub fn spelled(name: &str, value: &str) -> Option<&'static str> {
    let spelled = match () {
        () if name.eq_ignore_ascii_case("client_encoding") => encoding(value),
        () if name.eq_ignore_ascii_case("standard_conforming_strings") => boolean(value),
        () => None,
    };
    spelled.filter(|spelled| *spelled != value)
}

fn encoding(value: &str) -> Option<&'static str> {
    let plain = |name: &str| {
        let kept = name.chars().filter(char::is_ascii_alphanumeric);
        kept.collect::<String>().to_ascii_lowercase()
    };
    let wanted = plain(value);
    let own = ENCODINGS.iter().find(|name| plain(name) == wanted);
    let other = || ALIASES.iter().find(|(name, _)| *name == wanted);
    own.copied().or_else(|| other().map(|(_, name)| *name))
}

/// PostgreSQL takes what a word begins with, as long as only one word begins so.
fn boolean(value: &str) -> Option<&'static str> {
    let begins = |word: &str, least: usize| {
        let start = word.get(..value.len());
        value.len() >= least && start.is_some_and(|start| start.eq_ignore_ascii_case(value))
    };
    match () {
        () if begins("true", 1) || begins("yes", 1) || begins("on", 2) || value == "1" => {
            Some("on")
        }
        () if begins("false", 1) || begins("no", 1) || begins("off", 2) || value == "0" => {
            Some("off")
        }
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_have_one_name() {
        for value in ["utf-8", "UTF_8", "unicode", "Utf8"] {
            assert_eq!(spelled("Client_Encoding", value), Some("UTF8"), "{value}");
        }
        assert_eq!(spelled("client_encoding", "latin-1"), Some("LATIN1"));
        assert_eq!(spelled("client_encoding", "ISO-8859-15"), Some("LATIN9"));
        assert_eq!(spelled("client_encoding", "UTF8"), None);
        assert_eq!(spelled("client_encoding", "klingon"), None);
    }

    #[test]
    fn truth_has_many_words() {
        let spelled = |value| spelled("standard_conforming_strings", value);
        assert_eq!(spelled("TRUE"), Some("on"));
        assert_eq!(spelled("y"), Some("on"));
        assert_eq!(spelled("of"), Some("off"));
        assert_eq!(spelled("o"), None, "it may be either");
        assert_eq!(spelled("on"), None);
        assert_eq!(spelled(""), None);
    }
}
