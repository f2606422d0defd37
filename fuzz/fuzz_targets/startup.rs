//! The first packet: what is understood is written back and understood the same, and more bytes
//! never change what was understood from fewer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgweir_wire::{FirstPacket, frontend};

fuzz_target!(|bytes: &[u8]| {
    let parsed = FirstPacket::parse(bytes);
    for end in 0..bytes.len().min(64) {
        match FirstPacket::parse(&bytes[..end]) {
            Ok(None) => {}
            shorter => assert_eq!(shorter.is_err(), parsed.is_err()),
        }
    }
    let Ok(Some((packet, size))) = parsed else {
        return;
    };
    assert!(size <= bytes.len());
    let mut out = bytes::BytesMut::new();
    match &packet {
        FirstPacket::SslRequest | FirstPacket::GssEncRequest => return,
        FirstPacket::CancelRequest(key) => frontend::cancel_request(&mut out, key),
        FirstPacket::Startup(message) => {
            frontend::startup(&mut out, message.version, message.parameters());
        }
    }
    let again = FirstPacket::parse(&out).expect("our own packet is well-formed");
    assert_eq!(again, Some((packet, out.len())));
});
