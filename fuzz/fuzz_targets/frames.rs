//! Headers, message bodies and error fields of any bytes: never a panic, never a read beyond.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgweir_wire::backend::{Authentication, read_parameter_status};
use pgweir_wire::frontend::Target;
use pgweir_wire::{CancelKey, ErrorFields, Header};

fuzz_target!(|input: (u32, &[u8])| {
    let (limit, mut bytes) = input;
    while let Ok(Some((header, body))) = Header::whole(bytes, limit) {
        assert_eq!(header.body_len, body.len());
        assert!(header.frame_len() - 1 <= limit as usize);
        let fields = ErrorFields::parse(body);
        assert!(fields.message.len() <= body.len());
        let _ = fields.sqlstate();
        let _ = Target::parse(body);
        let _ = read_parameter_status(body);
        let _ = CancelKey::parse(body);
        if let Ok(message) = Authentication::parse(body) {
            let mut out = bytes::BytesMut::new();
            message.write(&mut out);
            assert_eq!(Authentication::parse(&out[5..]), Ok(message));
        }
        bytes = &bytes[header.frame_len()..];
    }
});
