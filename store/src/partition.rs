//! Which partition holds a device.

use unhidra_core::ids::{DeviceId, Partition};

/// The partition of a device among `partitions`: FNV-1a (64 bit) over its id, modulo.
///
/// Part of the format: another function would look for every device in the wrong place.
pub(crate) fn partition_of(device: &DeviceId, partitions: u16) -> Partition {
    let hash = device
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let index = hash.checked_rem(u64::from(partitions)).unwrap_or(0);
    Partition::new(u16::try_from(index).unwrap_or(0))
}

/// How many partitions a new folder has: 1 up to 15 cores, cores / 8 above.
pub(crate) fn partitions_for(cores: usize) -> u16 {
    u16::try_from((cores / 8).max(1)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_stays_where_the_format_puts_it() {
        let of = |id: &str, partitions| partition_of(&id.parse().unwrap(), partitions).get();
        assert_eq!([of("pump-7", 1), of("pump-7", 4), of("pump-7", 65_535)], PUMP_7);
        assert_eq!([of("a", 1), of("a", 4), of("a", 65_535)], A);
    }

    // Computed apart from this code, with the reference FNV-1a of a Python prompt.
    const PUMP_7: [u16; 3] = [0, 3, 10748];
    const A: [u16; 3] = [0, 0, 65086];

    #[test]
    fn devices_spread() {
        let mut held = [0_u32; 8];
        for n in 0..8000 {
            let device = format!("sensor-{n:05}").parse().unwrap();
            held[usize::from(partition_of(&device, 8).get())] += 1;
        }
        assert!(held.iter().all(|count| (800..1200).contains(count)), "{held:?}");
    }

    #[test]
    fn one_partition_up_to_15_cores() {
        assert_eq!([1, 2, 8, 15, 16, 64].map(partitions_for), [1, 1, 1, 1, 2, 8]);
    }
}
