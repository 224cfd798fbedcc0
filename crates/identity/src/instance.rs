//! U of PROTOCOL section 1: what tells one workload instance from another that had its slot before.

use aws_lc_rs::digest::{SHA256, digest};

use crate::ids::Instance;

/// The instance of a workload whose slot is bound now.
///
/// Shape: the first eight bytes of SHA-256 over `stolos-instance-1` and, each after its length as u32 BE, the trust
///        domain, the uid and the nonce; never 0, which means "not placed".
///
/// `nonce` is random and made when the slot is bound, so that nobody can choose a uid whose U equals another's.
pub fn instance(trust_domain: &str, uid: &str, nonce: &[u8; 16]) -> Instance {
    let mut message = b"stolos-instance-1".to_vec();
    for part in [trust_domain.as_bytes(), uid.as_bytes(), nonce] {
        message.extend((part.len() as u32).to_be_bytes());
        message.extend(part);
    }
    let hash = digest(&SHA256, &message);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_ref()[..8]);
    Instance(u64::from_be_bytes(first).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binding_is_another_instance() {
        let uid = "0191a2b3-c4d5-7e6f-8091-a2b3c4d5e6f7";
        let one = instance("example.org", uid, &[1; 16]);
        assert_eq!(one, instance("example.org", uid, &[1; 16]));
        assert_ne!(one, instance("example.org", uid, &[2; 16]));
        assert_ne!(one, instance("example.com", uid, &[1; 16]));
        assert_ne!(instance("a", "bc", &[1; 16]), instance("ab", "c", &[1; 16]));
    }
}
