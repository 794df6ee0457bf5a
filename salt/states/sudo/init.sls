# Agents raise their privileges by sudo; without CAP_SYS_RESOURCE it cannot set the core limit and complains on stderr, which they take for a failure.
/etc/sudo.conf:
  file.managed:
    - contents: Set disable_coredump false
    - mode: "0644"

/usr/lib/toastdev/privsep-helper:
  file.managed:
    - source: salt://sudo/files/privsep-helper
    - mode: "0755"
    - makedirs: true

# What services are started with (node/files/python.conf) goes on to rootwrap and privsep.
/etc/sudoers.d/toastdev:
  file.managed:
    - contents: |
        Defaults env_keep += "SETUPTOOLS_USE_DISTUTILS EVENTLET_NO_GREENDNS"
        cinder, neutron, nova ALL = (root) NOPASSWD: /usr/lib/toastdev/privsep-helper *
    - mode: "0440"
