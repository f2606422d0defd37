//! HBA rules and user name maps of any text.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pgweir_auth::hba::Hba;
use pgweir_auth::ident::IdentMaps;

fuzz_target!(|input: (&str, &str, &str)| {
    let (rules, maps, other) = input;
    let (maps, problems) = IdentMaps::parse(maps);
    for problem in problems {
        assert!(problem.line > 0);
    }
    let mut read = |_: &Path| Ok(other.to_owned());
    let (_, problems) = Hba::parse(rules, Path::new("/etc/hba.conf"), &maps, &mut read);
    for problem in problems {
        assert!(problem.line > 0 && !problem.kind.to_string().is_empty());
    }
});
