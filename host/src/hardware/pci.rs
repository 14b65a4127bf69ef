//! GPUs as Linux lists them on the PCI bus: `/sys/bus/pci/devices`.

use std::fs;
use std::path::Path;

use super::gpu::{Gpu, Vendor};

/// Where the kernel lists what is on the bus.
const DEVICES: &str = "/sys/bus/pci/devices";
/// Most GPUs that are told of; further ones are left out.
const GPUS_MAX: usize = 64;
/// First byte of the class code of display controllers, and of processing accelerators (PCI Code and ID Assignment).
const CLASSES: [u32; 2] = [0x03, 0x12];

/// The GPUs of this machine, by their address; none where there is no such list.
pub(super) fn gpus() -> Vec<Gpu> {
    gpus_in(Path::new(DEVICES))
}

fn gpus_in(devices: &Path) -> Vec<Gpu> {
    let Ok(entries) = fs::read_dir(devices) else { return Vec::new() };
    let mut gpus: Vec<Gpu> = entries.filter_map(|entry| gpu(&entry.ok()?.path())).take(GPUS_MAX).collect();
    gpus.sort_by(|a, b| a.pci.cmp(&b.pci));
    gpus
}

fn gpu(device: &Path) -> Option<Gpu> {
    let number = |file: &str| {
        let text = fs::read_to_string(device.join(file)).ok()?;
        u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
    };
    let class = number("class")? >> 16;
    if !CLASSES.contains(&class) {
        return None;
    }
    let address = device.file_name()?.to_str()?.to_owned();
    let (vendor_id, device_id) = (number("vendor")?, number("device")?);
    let (vendor, maker) = match vendor_id {
        0x1002 => (Vendor::Amd, "AMD"),
        0x106b => (Vendor::Apple, "Apple"),
        0x10de => (Vendor::Nvidia, "NVIDIA"),
        0x8086 => (Vendor::Intel, "Intel"),
        // What virtual machines and servers' management controllers show a console with computes nothing.
        _ if class == 0x03 && !is_compute_vendor(vendor_id) => return None,
        _ => (Vendor::Other, "unknown maker"),
    };
    // AMD's driver tells the memory of its cards here.
    let memory = fs::read_to_string(device.join("mem_info_vram_total")).ok();
    Some(Gpu {
        id: format!("pci:{address}"),
        vendor,
        name: format!("{maker} {vendor_id:04x}:{device_id:04x}"),
        pci: Some(address),
        memory_total_bytes: memory.and_then(|bytes| bytes.trim().parse().ok()),
        driver: None,
        cuda_driver: None,
        compute: None,
        mig: None,
    })
}

/// Makers whose display controllers compute: Qualcomm, Moore Threads, Imagination.
fn is_compute_vendor(vendor_id: u32) -> bool {
    matches!(vendor_id, 0x17cb | 0x1ed5 | 0x1010)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_controllers_are_found_and_consoles_and_networks_are_not() {
        let bus = tempfile::tempdir().unwrap();
        let add = |address: &str, files: &[(&str, &str)]| {
            let folder = bus.path().join(address);
            fs::create_dir(&folder).unwrap();
            files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
        };
        let nvidia = [("class", "0x030200\n"), ("vendor", "0x10de\n"), ("device", "0x2330\n")];
        add("0000:41:00.0", &nvidia);
        let amd = ("mem_info_vram_total", "17163091968\n");
        add("0000:03:00.0", &[("class", "0x030000"), ("vendor", "0x1002"), ("device", "0x744c"), amd]);
        add("0000:00:01.0", &[("class", "0x030000"), ("vendor", "0x1234"), ("device", "0x1111")]);
        add("0000:00:02.0", &[("class", "0x020000"), ("vendor", "0x8086"), ("device", "0x100e")]);
        add("0000:00:03.0", &[("class", "nonsense")]);
        let found = gpus_in(bus.path());
        let show =
            |gpu: &Gpu| format!("{} {:?} {} {:?}", gpu.id, gpu.vendor, gpu.name, gpu.memory_total_bytes);
        assert_eq!(
            found.iter().map(show).collect::<Vec<_>>(),
            [
                "pci:0000:03:00.0 Amd AMD 1002:744c Some(17163091968)",
                "pci:0000:41:00.0 Nvidia NVIDIA 10de:2330 None"
            ]
        );
        assert!(gpus_in(&bus.path().join("missing")).is_empty());
    }
}
