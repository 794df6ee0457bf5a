{# `mount -t nfs` on this node: by the kernel, or where it has no NFS client by FUSE from the same node. #}
{% set fuse = pillar.nfs_client == 'fuse' %}

include:
  - nas.install
  - ssh

# The package's own helper stays beside ours; which of the two is mount.nfs is this node's pillar's choice.
nfs-helper-diverted:
  cmd.run:
    - name: dpkg-divert --local --rename --divert /sbin/mount.nfs.kernel --add /sbin/mount.nfs
    - unless: test "$(dpkg-divert --truename /sbin/mount.nfs)" = /sbin/mount.nfs.kernel
    - require:
      - sls: nas.install

/usr/lib/toastdev/mount.nfs.fuse:
  file.managed:
    - source: salt://nas/files/mount.nfs.fuse
    - mode: "0755"
    - makedirs: true

/sbin/mount.nfs:
  file.symlink:
    - target: {{ '/usr/lib/toastdev/mount.nfs.fuse' if fuse else '/sbin/mount.nfs.kernel' }}
    - force: true
    - require:
      - cmd: nfs-helper-diverted
      - file: /usr/lib/toastdev/mount.nfs.fuse
