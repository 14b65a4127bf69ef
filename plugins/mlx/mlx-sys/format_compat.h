// The part of C++20's <format> that mlx-c uses, for standard libraries that lack it (GCC 12 and older): `{}` only.
#pragma once

#if defined(__cplusplus)
#if __has_include(<format>)
#include <format>
#else
#include <sstream>
#include <string>
#include <string_view>

namespace std {

template <typename... Args>
string format(string_view pattern, const Args&... args) {
  ostringstream out;
  auto put = [&](const auto& value) {
    const auto hole = pattern.find("{}");
    out << pattern.substr(0, hole);
    if (hole != string_view::npos) {
      out << value;
      pattern.remove_prefix(hole + 2);
    } else {
      pattern = {};
    }
  };
  (put(args), ...);
  out << pattern;
  return out.str();
}

} // namespace std
#endif
#endif
