//! A whole IP packet from a hostile peer: read without harm, and what is read can be built and read again.
#![no_main]

use handshake::option::find;
use handshake::segment::Segment;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(segment) = Segment::read(bytes) else { return };
    let _ = find(&segment.options);
    // Mapped addresses inside an IPv6 packet come out as IPv4 when built; everything else is read as it was.
    let mapped = |address: std::net::SocketAddr| address.ip().to_canonical() != address.ip();
    if mapped(segment.source) || mapped(segment.destination) {
        return;
    }
    let packet = segment.to_packet().expect("what fitted one packet fits another");
    assert_eq!(Segment::read(&packet), Ok(segment));
});
