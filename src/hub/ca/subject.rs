//! A certificate with a subject of many organisations: a user may be in many groups, of which rcgen writes one.

use rcgen::{KeyPair, SigningKey};
use yasna::models::ObjectIdentifier;
use yasna::{ASN1Error, ASN1Result, construct_der, parse_der};

/// Where the subject stands in a certificate of version 3 (RFC 5280, 4.1): behind version, serial number, signature, issuer and validity.
const SUBJECT: usize = 5;
/// X.520: common name, organisation.
const COMMON_NAME: [u64; 4] = [2, 5, 4, 3];
const ORGANIZATION: [u64; 4] = [2, 5, 4, 10];

/// Why a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    /// The certificate to begin with is not as it should be.
    #[error("the certificate cannot be written")]
    Der(#[from] ASN1Error),
    /// The library that signs refused.
    #[error("the certificate cannot be signed")]
    Sign(#[from] rcgen::Error),
}

/// The certificate (DER) with this subject, signed anew, as PEM.
pub(super) fn with_subject(
    certificate: &[u8],
    name: &str,
    organizations: &[String],
    key: &KeyPair,
) -> Result<String, SubjectError> {
    let outer = elements(certificate)?;
    let [to_be_signed, algorithm, _] = outer.as_slice() else {
        return Err(ASN1Error::new(yasna::ASN1ErrorKind::Invalid).into());
    };
    let mut inner = elements(to_be_signed)?;
    let subject = inner.get_mut(SUBJECT).ok_or(ASN1Error::new(yasna::ASN1ErrorKind::Eof))?;
    *subject = distinguished_name(name, organizations);
    let to_be_signed = sequence(&inner);
    let signature = key.sign(&to_be_signed)?;
    let signature = construct_der(|writer| writer.write_bitvec_bytes(&signature, signature.len() * 8));
    let certificate = sequence(&[to_be_signed, algorithm.clone(), signature]);
    Ok(pem::encode(&pem::Pem::new("CERTIFICATE", certificate)))
}

fn elements(sequence: &[u8]) -> ASN1Result<Vec<Vec<u8>>> {
    parse_der(sequence, |reader| reader.collect_sequence_of(|element| element.read_der()))
}

fn sequence(elements: &[Vec<u8>]) -> Vec<u8> {
    construct_der(|writer| {
        writer.write_sequence(|writer| elements.iter().for_each(|element| writer.next().write_der(element)));
    })
}

fn distinguished_name(name: &str, organizations: &[String]) -> Vec<u8> {
    let groups = organizations.iter().map(|group| (ORGANIZATION, group.as_str()));
    let attributes: Vec<Vec<u8>> = groups
        .chain([(COMMON_NAME, name)])
        .map(|(kind, text)| {
            construct_der(|writer| {
                writer.write_set(|writer| {
                    writer.next().write_sequence(|writer| {
                        writer.next().write_oid(&ObjectIdentifier::from_slice(&kind));
                        writer.next().write_utf8_string(text);
                    });
                });
            })
        })
        .collect();
    sequence(&attributes)
}
