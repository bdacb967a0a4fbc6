# Sourced by tools/demo and tools/check. vulkan NAME: where the machine has no Vulkan driver at all, software Vulkan is
# installed, or NAME says what to install.
vulkan() {
    [ "$(uname -s)" = Linux ] || return 0 # Metal and DX12 come with the system.
    compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null && return
    compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null && return
    [ -z "${VK_ICD_FILENAMES:-}${VK_DRIVER_FILES:-}" ] || return 0
    command -v apt-get >/dev/null || {
        echo "$1: no Vulkan driver: install your GPU's, or Mesa's software Vulkan (lavapipe):" >&2
        echo "  Fedora: dnf install mesa-vulkan-drivers · Arch: pacman -S vulkan-swrast · Alpine: apk add mesa-vulkan-swrast" >&2
        exit 2
    }
    local sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "$1: no Vulkan driver found, installing software Vulkan (mesa-vulkan-drivers)" >&2
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends mesa-vulkan-drivers libvulkan1
}
