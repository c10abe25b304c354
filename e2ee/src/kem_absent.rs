//! A build without suite 2: the types of `kem.rs`, of which no value can exist. What handles them
//! is written once, and compiles to nothing.

use core::convert::Infallible;
use core::marker::PhantomData;

use rand_core::CryptoRng;

use crate::envelope::KEM_KEY_LEN;
use crate::head::Head;
use crate::wire::{Reader, Short};

pub(crate) struct KemSeed(Infallible);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct KemKey<'a>(Infallible, PhantomData<&'a ()>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct KemCiphertext<'a>(Infallible, PhantomData<&'a ()>);

pub(crate) struct KemSecret(Infallible);

impl KemSeed {
    pub(crate) fn draw(_: &mut impl CryptoRng) -> Option<Self> {
        None
    }

    pub(crate) const fn public(&self) -> [u8; KEM_KEY_LEN] {
        match self.0 {}
    }

    pub(crate) const fn decapsulate(&self, _: KemCiphertext<'_>) -> (KemSecret, [u8; KEM_KEY_LEN]) {
        match self.0 {}
    }
}

impl<'a> KemKey<'a> {
    /// Not reached: the suite byte was refused before.
    pub(crate) const fn read(_: &mut Reader<'a>) -> Result<Self, Short> {
        Err(Short)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; KEM_KEY_LEN] {
        match self.0 {}
    }

    pub(crate) fn encapsulate(self, _: &mut Head, _: &mut impl CryptoRng) -> Option<KemSecret> {
        match self.0 {}
    }
}

impl<'a> KemCiphertext<'a> {
    /// Not reached: the suite byte was refused before.
    pub(crate) const fn read(_: &mut Reader<'a>) -> Result<Self, Short> {
        Err(Short)
    }
}

impl KemSecret {
    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        match self.0 {}
    }
}
