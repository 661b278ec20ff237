// Which hardware profile a command counts with: the one that is named, the user's own, or a short
// measurement. One thread.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "policy/hardware.h"

namespace sluice::apps {

/// A profile and where it comes from, in words for people.
struct KnownProfile {
  policy::HardwareProfile hardware;
  std::string
      origin;  ///< "--hardware t4-208gb", "/home/me/.config/sluice/hardware.yaml", "a short measurement"
};

/// Where `sluice profile` keeps this machine's: $XDG_CONFIG_HOME/sluice/hardware.yaml, by default below
/// ~/.config. Empty if neither that variable nor HOME is set.
std::filesystem::path user_profile_path();

/// The device that `choice` ("auto", "cpu", "cuda:0") takes, as profiles and reports name it. Throws
/// Error{kInvalidArgument, kDevice, kUnsupported}.
std::string device_description(const std::string& choice);

/// The profile that --hardware names: a file, or one that ships. Names the fields that took defaults, and
/// warns if it is of another machine than the one whose device is `here` (empty: not known). Throws
/// Error{kNotFound, kInvalidArgument}.
KnownProfile named_profile(const std::string& name, const std::string& here);

/// The user's own, if there is one and it is of the device `here`; warned of and left alone if it is of
/// another. Throws Error{kInvalidArgument} for a file that cannot be read.
std::optional<KnownProfile> user_profile(const std::string& here);

/// Measures for about 10 seconds, and says so.
KnownProfile measured_profile(const std::string& device, const std::string& disk_dir);

/// For planning alone: the named one, else the user's own, else a measurement; says which. A shipped one is
/// not warned of.
KnownProfile find_profile(const std::string& name, const std::string& device, const std::string& disk_dir);

}  // namespace sluice::apps
