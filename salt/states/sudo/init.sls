# Agents raise their privileges by sudo; without CAP_SYS_RESOURCE it cannot set the core limit and complains on stderr, which they take for a failure.
/etc/sudo.conf:
  file.managed:
    - contents: Set disable_coredump false
    - mode: "0644"
