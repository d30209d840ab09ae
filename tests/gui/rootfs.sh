#!/bin/bash
# rootfs.sh DIR - make a folder with Debian's Blender, a virtual screen and software OpenGL, to
# `chroot` into. Takes 1 to 2 minutes and 1.4 GB. Needs root and mmdebstrap.
set -euo pipefail
folder=${1:?}
mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -v security | head -1)
packages=blender,xvfb,xdotool,imagemagick,xclip,libgl1-mesa-dri,libegl-mesa0,libegl1,libgl1
packages+=,fonts-dejavu-core,ca-certificates,python3,python3-numpy,python3-requests
packages+=,python3-zstandard,python3-cattr
# A mirror may be a frozen copy, which counts as expired.
mmdebstrap --mode=root --variant=minbase \
  --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
  --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
  --include="$packages" "${SUITE:-trixie}" "$folder.part" "deb ${mirror:-http://deb.debian.org/debian} ${SUITE:-trixie} main"
mv "$folder.part" "$folder"
