{# `mount -t nfs` on this node: by the kernel, or where it has no NFS client by FUSE from the same node. #}
{% set fuse = pillar.nfs_client == 'fuse' %}

include:
  - nas.install
  - ssh

{% for script in ['mount.nfs.fuse', 'nfs-connection'] %}
/usr/lib/toastdev/{{ script }}:
  file.managed:
    - source: salt://nas/files/{{ script }}
    - mode: "0755"
    - makedirs: true
{% endfor %}

# The package's helper stays beside ours; which of the two `mount` finds is this node's pillar's choice.
/sbin/mount.nfs.kernel:
  file.rename:
    - source: /sbin/mount.nfs
    - require:
      - sls: nas.install

/sbin/mount.nfs:
  file.symlink:
    - target: {{ '/usr/lib/toastdev/mount.nfs.fuse' if fuse else '/sbin/mount.nfs.kernel' }}
    - force: true
    - require:
      - file: /sbin/mount.nfs.kernel
      - file: /usr/lib/toastdev/mount.nfs.fuse
      - file: /usr/lib/toastdev/nfs-connection
