"""What libvirt's access control asks for: by script/generate_permissions.py, not by hand.

Source: docs/protocol/procedures.tsv. A permission is OBJECT:WORD.
"""

from typing import Final, NamedTuple

from proxyd.wire.programs import Program


class Asked(NamedTuple):
    """A permission that is asked for with certain flags only: `unless` they have one of `flags`,
    or if they have all of them. Which word of a call they are is in flags.py.
    """

    permission: str
    flags: int
    unless: bool = False


_REMOTE: Final = (
    None,
    ("connect:getattr",),  # CONNECT_OPEN
    (),  # CONNECT_CLOSE
    ("connect:getattr",),  # CONNECT_GET_TYPE
    ("connect:getattr",),  # CONNECT_GET_VERSION
    ("connect:read",),  # CONNECT_GET_MAX_VCPUS
    ("connect:read",),  # NODE_GET_INFO
    ("connect:read",),  # CONNECT_GET_CAPABILITIES
    ("domain:write",),  # DOMAIN_ATTACH_DEVICE
    ("domain:start",),  # DOMAIN_CREATE
    ("domain:write", "domain:start"),  # DOMAIN_CREATE_XML
    ("domain:write", "domain:save"),  # DOMAIN_DEFINE_XML
    ("domain:stop",),  # DOMAIN_DESTROY
    ("domain:write",),  # DOMAIN_DETACH_DEVICE
    ("domain:read",),  # DOMAIN_GET_XML_DESC
    ("domain:read",),  # DOMAIN_GET_AUTOSTART
    ("domain:read",),  # DOMAIN_GET_INFO
    ("domain:read",),  # DOMAIN_GET_MAX_MEMORY
    ("domain:read",),  # DOMAIN_GET_MAX_VCPUS
    ("domain:read",),  # DOMAIN_GET_OS_TYPE
    ("domain:read",),  # DOMAIN_GET_VCPUS
    ("connect:search_domains",),  # CONNECT_LIST_DEFINED_DOMAINS
    ("domain:getattr",),  # DOMAIN_LOOKUP_BY_ID
    ("domain:getattr",),  # DOMAIN_LOOKUP_BY_NAME
    ("domain:getattr",),  # DOMAIN_LOOKUP_BY_UUID
    ("connect:search_domains",),  # CONNECT_NUM_OF_DEFINED_DOMAINS
    ("domain:write",),  # DOMAIN_PIN_VCPU
    ("domain:init_control",),  # DOMAIN_REBOOT
    ("domain:suspend",),  # DOMAIN_RESUME
    ("domain:write",),  # DOMAIN_SET_AUTOSTART
    ("domain:write",),  # DOMAIN_SET_MAX_MEMORY
    ("domain:write",),  # DOMAIN_SET_MEMORY
    ("domain:write",),  # DOMAIN_SET_VCPUS
    ("domain:init_control",),  # DOMAIN_SHUTDOWN
    ("domain:suspend",),  # DOMAIN_SUSPEND
    ("domain:delete",),  # DOMAIN_UNDEFINE
    ("connect:search_networks",),  # CONNECT_LIST_DEFINED_NETWORKS
    ("connect:search_domains",),  # CONNECT_LIST_DOMAINS
    ("connect:search_networks",),  # CONNECT_LIST_NETWORKS
    ("network:start",),  # NETWORK_CREATE
    ("network:write", "network:start"),  # NETWORK_CREATE_XML
    ("network:write", "network:save"),  # NETWORK_DEFINE_XML
    ("network:stop",),  # NETWORK_DESTROY
    ("network:read",),  # NETWORK_GET_XML_DESC
    ("network:read",),  # NETWORK_GET_AUTOSTART
    ("network:read",),  # NETWORK_GET_BRIDGE_NAME
    ("network:getattr",),  # NETWORK_LOOKUP_BY_NAME
    ("network:getattr",),  # NETWORK_LOOKUP_BY_UUID
    ("network:write",),  # NETWORK_SET_AUTOSTART
    ("network:delete",),  # NETWORK_UNDEFINE
    ("connect:search_networks",),  # CONNECT_NUM_OF_DEFINED_NETWORKS
    ("connect:search_domains",),  # CONNECT_NUM_OF_DOMAINS
    ("connect:search_networks",),  # CONNECT_NUM_OF_NETWORKS
    ("domain:core_dump",),  # DOMAIN_CORE_DUMP
    ("domain:start", "domain:write"),  # DOMAIN_RESTORE
    ("domain:hibernate",),  # DOMAIN_SAVE
    ("domain:read",),  # DOMAIN_GET_SCHEDULER_TYPE
    ("domain:read",),  # DOMAIN_GET_SCHEDULER_PARAMETERS
    ("domain:read",),  # DOMAIN_SET_SCHEDULER_PARAMETERS
    ("connect:getattr",),  # CONNECT_GET_HOSTNAME
    ("connect:getattr",),  # CONNECT_SUPPORTS_FEATURE
    ("domain:migrate", "domain:start", "domain:write"),  # DOMAIN_MIGRATE_PREPARE
    ("domain:migrate",),  # DOMAIN_MIGRATE_PERFORM
    ("domain:migrate",),  # DOMAIN_MIGRATE_FINISH
    ("domain:read",),  # DOMAIN_BLOCK_STATS
    ("domain:read",),  # DOMAIN_INTERFACE_STATS
    (),  # AUTH_LIST
    (),  # AUTH_SASL_INIT
    (),  # AUTH_SASL_START
    (),  # AUTH_SASL_STEP
    (),  # AUTH_POLKIT
    ("connect:search_storage_pools",),  # CONNECT_NUM_OF_STORAGE_POOLS
    ("connect:search_storage_pools",),  # CONNECT_LIST_STORAGE_POOLS
    ("connect:search_storage_pools",),  # CONNECT_NUM_OF_DEFINED_STORAGE_POOLS
    ("connect:search_storage_pools",),  # CONNECT_LIST_DEFINED_STORAGE_POOLS
    ("connect:detect_storage_pools",),  # CONNECT_FIND_STORAGE_POOL_SOURCES
    ("storage_pool:start", "storage_pool:write"),  # STORAGE_POOL_CREATE_XML
    ("storage_pool:write", "storage_pool:save"),  # STORAGE_POOL_DEFINE_XML
    ("storage_pool:start",),  # STORAGE_POOL_CREATE
    ("storage_pool:format",),  # STORAGE_POOL_BUILD
    ("storage_pool:stop",),  # STORAGE_POOL_DESTROY
    ("storage_pool:format",),  # STORAGE_POOL_DELETE
    ("storage_pool:delete",),  # STORAGE_POOL_UNDEFINE
    ("storage_pool:refresh",),  # STORAGE_POOL_REFRESH
    ("storage_pool:getattr",),  # STORAGE_POOL_LOOKUP_BY_NAME
    ("storage_pool:getattr",),  # STORAGE_POOL_LOOKUP_BY_UUID
    ("storage_pool:getattr",),  # STORAGE_POOL_LOOKUP_BY_VOLUME
    ("storage_pool:read",),  # STORAGE_POOL_GET_INFO
    ("storage_pool:read",),  # STORAGE_POOL_GET_XML_DESC
    ("storage_pool:read",),  # STORAGE_POOL_GET_AUTOSTART
    ("storage_pool:write",),  # STORAGE_POOL_SET_AUTOSTART
    ("storage_pool:search_storage_vols",),  # STORAGE_POOL_NUM_OF_VOLUMES
    ("storage_pool:search_storage_vols",),  # STORAGE_POOL_LIST_VOLUMES
    ("storage_vol:create",),  # STORAGE_VOL_CREATE_XML
    ("storage_vol:delete",),  # STORAGE_VOL_DELETE
    ("storage_vol:getattr",),  # STORAGE_VOL_LOOKUP_BY_NAME
    ("storage_vol:getattr",),  # STORAGE_VOL_LOOKUP_BY_KEY
    ("storage_vol:getattr",),  # STORAGE_VOL_LOOKUP_BY_PATH
    ("storage_vol:read",),  # STORAGE_VOL_GET_INFO
    ("storage_vol:read",),  # STORAGE_VOL_GET_XML_DESC
    ("storage_vol:read",),  # STORAGE_VOL_GET_PATH
    ("connect:read",),  # NODE_GET_CELLS_FREE_MEMORY
    ("connect:read",),  # NODE_GET_FREE_MEMORY
    ("domain:block_read",),  # DOMAIN_BLOCK_PEEK
    ("domain:mem_read",),  # DOMAIN_MEMORY_PEEK
    ("connect:search_domains",),  # CONNECT_DOMAIN_EVENT_REGISTER
    ("connect:read",),  # CONNECT_DOMAIN_EVENT_DEREGISTER
    None,  # DOMAIN_EVENT_LIFECYCLE
    ("domain:migrate", "domain:start", "domain:write"),  # DOMAIN_MIGRATE_PREPARE2
    ("domain:migrate",),  # DOMAIN_MIGRATE_FINISH2
    ("connect:getattr",),  # CONNECT_GET_URI
    ("connect:search_node_devices",),  # NODE_NUM_OF_DEVICES
    ("connect:search_node_devices",),  # NODE_LIST_DEVICES
    ("node_device:getattr",),  # NODE_DEVICE_LOOKUP_BY_NAME
    ("node_device:read",),  # NODE_DEVICE_GET_XML_DESC
    ("node_device:read",),  # NODE_DEVICE_GET_PARENT
    ("node_device:read",),  # NODE_DEVICE_NUM_OF_CAPS
    ("node_device:read",),  # NODE_DEVICE_LIST_CAPS
    ("node_device:detach",),  # NODE_DEVICE_DETTACH
    ("node_device:detach",),  # NODE_DEVICE_RE_ATTACH
    ("node_device:detach",),  # NODE_DEVICE_RESET
    ("domain:read",),  # DOMAIN_GET_SECURITY_LABEL
    ("connect:read",),  # NODE_GET_SECURITY_MODEL
    ("node_device:write", "node_device:start"),  # NODE_DEVICE_CREATE_XML
    ("node_device:stop",),  # NODE_DEVICE_DESTROY
    ("storage_vol:create",),  # STORAGE_VOL_CREATE_XML_FROM
    ("connect:search_interfaces",),  # CONNECT_NUM_OF_INTERFACES
    ("connect:search_interfaces",),  # CONNECT_LIST_INTERFACES
    ("interface:getattr",),  # INTERFACE_LOOKUP_BY_NAME
    ("interface:getattr",),  # INTERFACE_LOOKUP_BY_MAC_STRING
    ("interface:read",),  # INTERFACE_GET_XML_DESC
    ("interface:write", "interface:save"),  # INTERFACE_DEFINE_XML
    ("interface:delete",),  # INTERFACE_UNDEFINE
    ("interface:start",),  # INTERFACE_CREATE
    ("interface:stop",),  # INTERFACE_DESTROY
    ("connect:write",),  # CONNECT_DOMAIN_XML_FROM_NATIVE
    ("connect:write",),  # CONNECT_DOMAIN_XML_TO_NATIVE
    ("connect:search_interfaces",),  # CONNECT_NUM_OF_DEFINED_INTERFACES
    ("connect:search_interfaces",),  # CONNECT_LIST_DEFINED_INTERFACES
    ("connect:search_secrets",),  # CONNECT_NUM_OF_SECRETS
    ("connect:search_secrets",),  # CONNECT_LIST_SECRETS
    ("secret:getattr",),  # SECRET_LOOKUP_BY_UUID
    ("secret:write", "secret:save"),  # SECRET_DEFINE_XML
    ("secret:read",),  # SECRET_GET_XML_DESC
    ("secret:write",),  # SECRET_SET_VALUE
    ("secret:read_secure",),  # SECRET_GET_VALUE
    ("secret:delete",),  # SECRET_UNDEFINE
    ("secret:getattr",),  # SECRET_LOOKUP_BY_USAGE
    ("domain:migrate", "domain:start", "domain:write"),  # DOMAIN_MIGRATE_PREPARE_TUNNEL
    (),  # CONNECT_IS_SECURE
    ("domain:read",),  # DOMAIN_IS_ACTIVE
    ("domain:read",),  # DOMAIN_IS_PERSISTENT
    ("network:read",),  # NETWORK_IS_ACTIVE
    ("network:read",),  # NETWORK_IS_PERSISTENT
    ("storage_pool:read",),  # STORAGE_POOL_IS_ACTIVE
    ("storage_pool:read",),  # STORAGE_POOL_IS_PERSISTENT
    ("interface:read",),  # INTERFACE_IS_ACTIVE
    ("connect:getattr",),  # CONNECT_GET_LIB_VERSION
    ("connect:read",),  # CONNECT_COMPARE_CPU
    ("domain:read",),  # DOMAIN_MEMORY_STATS
    ("domain:write",),  # DOMAIN_ATTACH_DEVICE_FLAGS
    ("domain:write",),  # DOMAIN_DETACH_DEVICE_FLAGS
    ("connect:read",),  # CONNECT_BASELINE_CPU
    ("domain:read",),  # DOMAIN_GET_JOB_INFO
    ("domain:write",),  # DOMAIN_ABORT_JOB
    ("storage_vol:format",),  # STORAGE_VOL_WIPE
    ("domain:migrate",),  # DOMAIN_MIGRATE_SET_MAX_DOWNTIME
    ("connect:search_domains",),  # CONNECT_DOMAIN_EVENT_REGISTER_ANY
    ("connect:read",),  # CONNECT_DOMAIN_EVENT_DEREGISTER_ANY
    None,  # DOMAIN_EVENT_REBOOT
    None,  # DOMAIN_EVENT_RTC_CHANGE
    None,  # DOMAIN_EVENT_WATCHDOG
    None,  # DOMAIN_EVENT_IO_ERROR
    None,  # DOMAIN_EVENT_GRAPHICS
    ("domain:write",),  # DOMAIN_UPDATE_DEVICE_FLAGS
    ("nwfilter:getattr",),  # NWFILTER_LOOKUP_BY_NAME
    ("nwfilter:getattr",),  # NWFILTER_LOOKUP_BY_UUID
    ("nwfilter:read",),  # NWFILTER_GET_XML_DESC
    ("connect:search_nwfilters",),  # CONNECT_NUM_OF_NWFILTERS
    ("connect:search_nwfilters",),  # CONNECT_LIST_NWFILTERS
    ("nwfilter:write", "nwfilter:save"),  # NWFILTER_DEFINE_XML
    ("nwfilter:delete",),  # NWFILTER_UNDEFINE
    ("domain:hibernate",),  # DOMAIN_MANAGED_SAVE
    ("domain:read",),  # DOMAIN_HAS_MANAGED_SAVE_IMAGE
    ("domain:hibernate",),  # DOMAIN_MANAGED_SAVE_REMOVE
    ("domain:snapshot",),  # DOMAIN_SNAPSHOT_CREATE_XML
    ("domain:read",),  # DOMAIN_SNAPSHOT_GET_XML_DESC
    ("domain:read",),  # DOMAIN_SNAPSHOT_NUM
    ("domain:read",),  # DOMAIN_SNAPSHOT_LIST_NAMES
    ("domain:read",),  # DOMAIN_SNAPSHOT_LOOKUP_BY_NAME
    ("domain:read",),  # DOMAIN_HAS_CURRENT_SNAPSHOT
    ("domain:read",),  # DOMAIN_SNAPSHOT_CURRENT
    ("domain:snapshot",),  # DOMAIN_REVERT_TO_SNAPSHOT
    ("domain:snapshot",),  # DOMAIN_SNAPSHOT_DELETE
    ("domain:read",),  # DOMAIN_GET_BLOCK_INFO
    None,  # DOMAIN_EVENT_IO_ERROR_REASON
    ("domain:start",),  # DOMAIN_CREATE_WITH_FLAGS
    ("domain:write",),  # DOMAIN_SET_MEMORY_PARAMETERS
    ("domain:read",),  # DOMAIN_GET_MEMORY_PARAMETERS
    ("domain:write",),  # DOMAIN_SET_VCPUS_FLAGS
    ("domain:read",),  # DOMAIN_GET_VCPUS_FLAGS
    ("domain:open_device",),  # DOMAIN_OPEN_CONSOLE
    ("domain:read",),  # DOMAIN_IS_UPDATED
    ("connect:read",),  # CONNECT_GET_SYSINFO
    ("domain:write",),  # DOMAIN_SET_MEMORY_FLAGS
    ("domain:write",),  # DOMAIN_SET_BLKIO_PARAMETERS
    ("domain:read",),  # DOMAIN_GET_BLKIO_PARAMETERS
    ("domain:migrate",),  # DOMAIN_MIGRATE_SET_MAX_SPEED
    ("storage_vol:data_write",),  # STORAGE_VOL_UPLOAD
    ("storage_vol:data_read",),  # STORAGE_VOL_DOWNLOAD
    ("domain:inject_nmi",),  # DOMAIN_INJECT_NMI
    ("domain:screenshot",),  # DOMAIN_SCREENSHOT
    ("domain:read",),  # DOMAIN_GET_STATE
    ("domain:migrate",),  # DOMAIN_MIGRATE_BEGIN3
    ("domain:migrate", "domain:start", "domain:write"),  # DOMAIN_MIGRATE_PREPARE3
    ("domain:migrate", "domain:start", "domain:write"),  # DOMAIN_MIGRATE_PREPARE_TUNNEL3
    ("domain:migrate",),  # DOMAIN_MIGRATE_PERFORM3
    ("domain:migrate",),  # DOMAIN_MIGRATE_FINISH3
    ("domain:migrate",),  # DOMAIN_MIGRATE_CONFIRM3
    ("domain:write",),  # DOMAIN_SET_SCHEDULER_PARAMETERS_FLAGS
    ("connect:interface_transaction",),  # INTERFACE_CHANGE_BEGIN
    ("connect:interface_transaction",),  # INTERFACE_CHANGE_COMMIT
    ("connect:interface_transaction",),  # INTERFACE_CHANGE_ROLLBACK
    ("domain:read",),  # DOMAIN_GET_SCHEDULER_PARAMETERS_FLAGS
    None,  # DOMAIN_EVENT_CONTROL_ERROR
    ("domain:write",),  # DOMAIN_PIN_VCPU_FLAGS
    ("domain:send_input",),  # DOMAIN_SEND_KEY
    ("connect:read",),  # NODE_GET_CPU_STATS
    ("connect:read",),  # NODE_GET_MEMORY_STATS
    ("domain:read",),  # DOMAIN_GET_CONTROL_INFO
    ("domain:read",),  # DOMAIN_GET_VCPU_PIN_INFO
    ("domain:delete",),  # DOMAIN_UNDEFINE_FLAGS
    ("domain:hibernate",),  # DOMAIN_SAVE_FLAGS
    ("domain:start", "domain:write"),  # DOMAIN_RESTORE_FLAGS
    ("domain:stop",),  # DOMAIN_DESTROY_FLAGS
    ("domain:write",),  # DOMAIN_SAVE_IMAGE_GET_XML_DESC
    ("domain:write", "domain:hibernate"),  # DOMAIN_SAVE_IMAGE_DEFINE_XML
    ("domain:write",),  # DOMAIN_BLOCK_JOB_ABORT
    ("domain:read",),  # DOMAIN_GET_BLOCK_JOB_INFO
    ("domain:write",),  # DOMAIN_BLOCK_JOB_SET_SPEED
    ("domain:block_write",),  # DOMAIN_BLOCK_PULL
    None,  # DOMAIN_EVENT_BLOCK_JOB
    ("domain:migrate",),  # DOMAIN_MIGRATE_GET_MAX_SPEED
    ("domain:read",),  # DOMAIN_BLOCK_STATS_FLAGS
    ("domain:read",),  # DOMAIN_SNAPSHOT_GET_PARENT
    ("domain:reset",),  # DOMAIN_RESET
    ("domain:read",),  # DOMAIN_SNAPSHOT_NUM_CHILDREN
    ("domain:read",),  # DOMAIN_SNAPSHOT_LIST_CHILDREN_NAMES
    None,  # DOMAIN_EVENT_DISK_CHANGE
    ("domain:open_graphics",),  # DOMAIN_OPEN_GRAPHICS
    ("connect:pm_control",),  # NODE_SUSPEND_FOR_DURATION
    ("domain:block_write",),  # DOMAIN_BLOCK_RESIZE
    ("domain:write",),  # DOMAIN_SET_BLOCK_IO_TUNE
    ("domain:read",),  # DOMAIN_GET_BLOCK_IO_TUNE
    ("domain:write",),  # DOMAIN_SET_NUMA_PARAMETERS
    ("domain:read",),  # DOMAIN_GET_NUMA_PARAMETERS
    ("domain:write",),  # DOMAIN_SET_INTERFACE_PARAMETERS
    ("domain:read",),  # DOMAIN_GET_INTERFACE_PARAMETERS
    ("domain:init_control",),  # DOMAIN_SHUTDOWN_FLAGS
    ("storage_vol:format",),  # STORAGE_VOL_WIPE_PATTERN
    ("storage_vol:resize",),  # STORAGE_VOL_RESIZE
    ("domain:pm_control",),  # DOMAIN_PM_SUSPEND_FOR_DURATION
    ("domain:read",),  # DOMAIN_GET_CPU_STATS
    ("domain:read",),  # DOMAIN_GET_DISK_ERRORS
    ("domain:write",),  # DOMAIN_SET_METADATA
    ("domain:read",),  # DOMAIN_GET_METADATA
    ("domain:block_write",),  # DOMAIN_BLOCK_REBASE
    ("domain:pm_control",),  # DOMAIN_PM_WAKEUP
    None,  # DOMAIN_EVENT_TRAY_CHANGE
    None,  # DOMAIN_EVENT_PMWAKEUP
    None,  # DOMAIN_EVENT_PMSUSPEND
    ("domain:read",),  # DOMAIN_SNAPSHOT_IS_CURRENT
    ("domain:read",),  # DOMAIN_SNAPSHOT_HAS_METADATA
    ("connect:search_domains",),  # CONNECT_LIST_ALL_DOMAINS
    ("domain:read",),  # DOMAIN_LIST_ALL_SNAPSHOTS
    ("domain:read",),  # DOMAIN_SNAPSHOT_LIST_ALL_CHILDREN
    None,  # DOMAIN_EVENT_BALLOON_CHANGE
    ("domain:write",),  # DOMAIN_GET_HOSTNAME
    ("domain:read",),  # DOMAIN_GET_SECURITY_LABEL_LIST
    ("domain:write",),  # DOMAIN_PIN_EMULATOR
    ("domain:read",),  # DOMAIN_GET_EMULATOR_PIN_INFO
    ("connect:search_storage_pools",),  # CONNECT_LIST_ALL_STORAGE_POOLS
    ("storage_pool:search_storage_vols",),  # STORAGE_POOL_LIST_ALL_VOLUMES
    ("connect:search_networks",),  # CONNECT_LIST_ALL_NETWORKS
    ("connect:search_interfaces",),  # CONNECT_LIST_ALL_INTERFACES
    ("connect:search_node_devices",),  # CONNECT_LIST_ALL_NODE_DEVICES
    ("connect:search_nwfilters",),  # CONNECT_LIST_ALL_NWFILTERS
    ("connect:search_secrets",),  # CONNECT_LIST_ALL_SECRETS
    ("connect:write",),  # NODE_SET_MEMORY_PARAMETERS
    ("connect:read",),  # NODE_GET_MEMORY_PARAMETERS
    ("domain:block_write",),  # DOMAIN_BLOCK_COMMIT
    ("network:write",),  # NETWORK_UPDATE
    None,  # DOMAIN_EVENT_PMSUSPEND_DISK
    ("connect:read",),  # NODE_GET_CPU_MAP
    ("domain:fs_trim",),  # DOMAIN_FSTRIM
    ("domain:send_signal",),  # DOMAIN_SEND_PROCESS_SIGNAL
    ("domain:open_device",),  # DOMAIN_OPEN_CHANNEL
    ("node_device:getattr",),  # NODE_DEVICE_LOOKUP_SCSI_HOST_BY_WWN
    ("domain:read",),  # DOMAIN_GET_JOB_STATS
    ("domain:migrate",),  # DOMAIN_MIGRATE_GET_COMPRESSION_CACHE
    ("domain:migrate",),  # DOMAIN_MIGRATE_SET_COMPRESSION_CACHE
    ("node_device:detach",),  # NODE_DEVICE_DETACH_FLAGS
    ("domain:migrate",),  # DOMAIN_MIGRATE_BEGIN3_PARAMS
    ("domain:migrate", "domain:start", "domain:write"),  # DOMAIN_MIGRATE_PREPARE3_PARAMS
    ("domain:migrate", "domain:start", "domain:write"),  # DOMAIN_MIGRATE_PREPARE_TUNNEL3_PARAMS
    ("domain:migrate",),  # DOMAIN_MIGRATE_PERFORM3_PARAMS
    ("domain:migrate",),  # DOMAIN_MIGRATE_FINISH3_PARAMS
    ("domain:migrate",),  # DOMAIN_MIGRATE_CONFIRM3_PARAMS
    ("domain:write",),  # DOMAIN_SET_MEMORY_STATS_PERIOD
    ("domain:write", "domain:start"),  # DOMAIN_CREATE_XML_WITH_FILES
    ("domain:start",),  # DOMAIN_CREATE_WITH_FILES
    None,  # DOMAIN_EVENT_DEVICE_REMOVED
    ("connect:read",),  # CONNECT_GET_CPU_MODEL_NAMES
    ("connect:search_networks",),  # CONNECT_NETWORK_EVENT_REGISTER_ANY
    ("connect:read",),  # CONNECT_NETWORK_EVENT_DEREGISTER_ANY
    None,  # NETWORK_EVENT_LIFECYCLE
    ("connect:search_domains",),  # CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY
    ("connect:read",),  # CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY
    None,  # DOMAIN_EVENT_CALLBACK_LIFECYCLE
    None,  # DOMAIN_EVENT_CALLBACK_REBOOT
    None,  # DOMAIN_EVENT_CALLBACK_RTC_CHANGE
    None,  # DOMAIN_EVENT_CALLBACK_WATCHDOG
    None,  # DOMAIN_EVENT_CALLBACK_IO_ERROR
    None,  # DOMAIN_EVENT_CALLBACK_GRAPHICS
    None,  # DOMAIN_EVENT_CALLBACK_IO_ERROR_REASON
    None,  # DOMAIN_EVENT_CALLBACK_CONTROL_ERROR
    None,  # DOMAIN_EVENT_CALLBACK_BLOCK_JOB
    None,  # DOMAIN_EVENT_CALLBACK_DISK_CHANGE
    None,  # DOMAIN_EVENT_CALLBACK_TRAY_CHANGE
    None,  # DOMAIN_EVENT_CALLBACK_PMWAKEUP
    None,  # DOMAIN_EVENT_CALLBACK_PMSUSPEND
    None,  # DOMAIN_EVENT_CALLBACK_BALLOON_CHANGE
    None,  # DOMAIN_EVENT_CALLBACK_PMSUSPEND_DISK
    None,  # DOMAIN_EVENT_CALLBACK_DEVICE_REMOVED
    ("domain:core_dump",),  # DOMAIN_CORE_DUMP_WITH_FORMAT
    ("domain:fs_freeze",),  # DOMAIN_FSFREEZE
    ("domain:fs_freeze",),  # DOMAIN_FSTHAW
    ("domain:write",),  # DOMAIN_GET_TIME
    ("domain:set_time",),  # DOMAIN_SET_TIME
    None,  # DOMAIN_EVENT_BLOCK_JOB_2
    ("connect:read",),  # NODE_GET_FREE_PAGES
    ("network:read",),  # NETWORK_GET_DHCP_LEASES
    ("connect:write",),  # CONNECT_GET_DOMAIN_CAPABILITIES
    ("domain:open_graphics",),  # DOMAIN_OPEN_GRAPHICS_FD
    ("connect:search_domains",),  # CONNECT_GET_ALL_DOMAIN_STATS
    ("domain:block_write",),  # DOMAIN_BLOCK_COPY
    None,  # DOMAIN_EVENT_CALLBACK_TUNABLE
    ("connect:write",),  # NODE_ALLOC_PAGES
    None,  # DOMAIN_EVENT_CALLBACK_AGENT_LIFECYCLE
    ("domain:fs_freeze",),  # DOMAIN_GET_FSINFO
    ("domain:write", "domain:save"),  # DOMAIN_DEFINE_XML_FLAGS
    ("domain:read",),  # DOMAIN_GET_IOTHREAD_INFO
    ("domain:write",),  # DOMAIN_PIN_IOTHREAD
    ("domain:read",),  # DOMAIN_INTERFACE_ADDRESSES
    None,  # DOMAIN_EVENT_CALLBACK_DEVICE_ADDED
    ("domain:write",),  # DOMAIN_ADD_IOTHREAD
    ("domain:write",),  # DOMAIN_DEL_IOTHREAD
    ("domain:set_password",),  # DOMAIN_SET_USER_PASSWORD
    ("domain:write", "domain:save"),  # DOMAIN_RENAME
    None,  # DOMAIN_EVENT_CALLBACK_MIGRATION_ITERATION
    ("connect:getattr",),  # CONNECT_REGISTER_CLOSE_CALLBACK
    ("connect:getattr",),  # CONNECT_UNREGISTER_CLOSE_CALLBACK
    None,  # CONNECT_EVENT_CONNECTION_CLOSED
    None,  # DOMAIN_EVENT_CALLBACK_JOB_COMPLETED
    ("domain:migrate",),  # DOMAIN_MIGRATE_START_POST_COPY
    ("domain:read",),  # DOMAIN_GET_PERF_EVENTS
    ("domain:write",),  # DOMAIN_SET_PERF_EVENTS
    None,  # DOMAIN_EVENT_CALLBACK_DEVICE_REMOVAL_FAILED
    ("connect:search_storage_pools",),  # CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY
    ("connect:read",),  # CONNECT_STORAGE_POOL_EVENT_DEREGISTER_ANY
    None,  # STORAGE_POOL_EVENT_LIFECYCLE
    ("domain:write",),  # DOMAIN_GET_GUEST_VCPUS
    ("domain:write",),  # DOMAIN_SET_GUEST_VCPUS
    None,  # STORAGE_POOL_EVENT_REFRESH
    ("connect:search_node_devices",),  # CONNECT_NODE_DEVICE_EVENT_REGISTER_ANY
    ("connect:read",),  # CONNECT_NODE_DEVICE_EVENT_DEREGISTER_ANY
    None,  # NODE_DEVICE_EVENT_LIFECYCLE
    None,  # NODE_DEVICE_EVENT_UPDATE
    ("storage_vol:read",),  # STORAGE_VOL_GET_INFO_FLAGS
    None,  # DOMAIN_EVENT_CALLBACK_METADATA_CHANGE
    ("connect:search_secrets",),  # CONNECT_SECRET_EVENT_REGISTER_ANY
    ("connect:read",),  # CONNECT_SECRET_EVENT_DEREGISTER_ANY
    None,  # SECRET_EVENT_LIFECYCLE
    None,  # SECRET_EVENT_VALUE_CHANGED
    ("domain:write",),  # DOMAIN_SET_VCPU
    None,  # DOMAIN_EVENT_BLOCK_THRESHOLD
    ("domain:write",),  # DOMAIN_SET_BLOCK_THRESHOLD
    ("domain:migrate",),  # DOMAIN_MIGRATE_GET_MAX_DOWNTIME
    ("domain:read",),  # DOMAIN_MANAGED_SAVE_GET_XML_DESC
    ("domain:write", "domain:hibernate"),  # DOMAIN_MANAGED_SAVE_DEFINE_XML
    ("domain:write",),  # DOMAIN_SET_LIFECYCLE_ACTION
    ("storage_pool:getattr",),  # STORAGE_POOL_LOOKUP_BY_TARGET_PATH
    ("domain:write",),  # DOMAIN_DETACH_DEVICE_ALIAS
    ("connect:write",),  # CONNECT_COMPARE_HYPERVISOR_CPU
    ("connect:write",),  # CONNECT_BASELINE_HYPERVISOR_CPU
    ("connect:read",),  # NODE_GET_SEV_INFO
    ("domain:read",),  # DOMAIN_GET_LAUNCH_SECURITY_INFO
    ("nwfilter_binding:getattr",),  # NWFILTER_BINDING_LOOKUP_BY_PORT_DEV
    ("nwfilter_binding:read",),  # NWFILTER_BINDING_GET_XML_DESC
    ("nwfilter_binding:create",),  # NWFILTER_BINDING_CREATE_XML
    ("nwfilter_binding:delete",),  # NWFILTER_BINDING_DELETE
    ("connect:search_nwfilter_bindings",),  # CONNECT_LIST_ALL_NWFILTER_BINDINGS
    ("domain:write",),  # DOMAIN_SET_IOTHREAD_PARAMS
    ("connect:read",),  # CONNECT_GET_STORAGE_POOL_CAPABILITIES
    ("network:search_ports",),  # NETWORK_LIST_ALL_PORTS
    ("network_port:getattr",),  # NETWORK_PORT_LOOKUP_BY_UUID
    ("network_port:create",),  # NETWORK_PORT_CREATE_XML
    ("network_port:read",),  # NETWORK_PORT_GET_PARAMETERS
    ("network_port:write",),  # NETWORK_PORT_SET_PARAMETERS
    ("network_port:read",),  # NETWORK_PORT_GET_XML_DESC
    ("network_port:delete",),  # NETWORK_PORT_DELETE
    ("domain:checkpoint",),  # DOMAIN_CHECKPOINT_CREATE_XML
    ("domain:read",),  # DOMAIN_CHECKPOINT_GET_XML_DESC
    ("domain:read",),  # DOMAIN_LIST_ALL_CHECKPOINTS
    ("domain:read",),  # DOMAIN_CHECKPOINT_LIST_ALL_CHILDREN
    ("domain:read",),  # DOMAIN_CHECKPOINT_LOOKUP_BY_NAME
    ("domain:read",),  # DOMAIN_CHECKPOINT_GET_PARENT
    ("domain:checkpoint",),  # DOMAIN_CHECKPOINT_DELETE
    ("domain:write",),  # DOMAIN_GET_GUEST_INFO
    ("connect:write",),  # CONNECT_SET_IDENTITY
    ("domain:write",),  # DOMAIN_AGENT_SET_RESPONSE_TIMEOUT
    ("domain:checkpoint", "domain:block_write"),  # DOMAIN_BACKUP_BEGIN
    ("domain:read",),  # DOMAIN_BACKUP_GET_XML_DESC
    None,  # DOMAIN_EVENT_MEMORY_FAILURE
    ("domain:write",),  # DOMAIN_AUTHORIZED_SSH_KEYS_GET
    ("domain:write",),  # DOMAIN_AUTHORIZED_SSH_KEYS_SET
    ("domain:read",),  # DOMAIN_GET_MESSAGES
    ("domain:write",),  # DOMAIN_START_DIRTY_RATE_CALC
    ("node_device:write", "node_device:save"),  # NODE_DEVICE_DEFINE_XML
    ("node_device:delete",),  # NODE_DEVICE_UNDEFINE
    ("node_device:start",),  # NODE_DEVICE_CREATE
    ("nwfilter:write", "nwfilter:save"),  # NWFILTER_DEFINE_XML_FLAGS
    ("network:write", "network:save"),  # NETWORK_DEFINE_XML_FLAGS
    ("node_device:read",),  # NODE_DEVICE_GET_AUTOSTART
    ("node_device:write",),  # NODE_DEVICE_SET_AUTOSTART
    ("node_device:read",),  # NODE_DEVICE_IS_PERSISTENT
    ("node_device:read",),  # NODE_DEVICE_IS_ACTIVE
    ("network:write", "network:start"),  # NETWORK_CREATE_XML_FLAGS
    None,  # DOMAIN_EVENT_MEMORY_DEVICE_SIZE_CHANGE
    ("domain:write",),  # DOMAIN_SET_LAUNCH_SECURITY_STATE
    ("domain:hibernate",),  # DOMAIN_SAVE_PARAMS
    ("domain:start", "domain:write"),  # DOMAIN_RESTORE_PARAMS
    ("domain:write",),  # DOMAIN_ABORT_JOB_FLAGS
    ("domain:write",),  # DOMAIN_FD_ASSOCIATE
    ("network:write",),  # NETWORK_SET_METADATA
    ("network:read",),  # NETWORK_GET_METADATA
    None,  # NETWORK_EVENT_CALLBACK_METADATA_CHANGE
    ("node_device:write",),  # NODE_DEVICE_UPDATE
    ("domain:write",),  # DOMAIN_GRAPHICS_RELOAD
    ("domain:read",),  # DOMAIN_GET_AUTOSTART_ONCE
    ("domain:write",),  # DOMAIN_SET_AUTOSTART_ONCE
    ("domain:write",),  # DOMAIN_SET_THROTTLE_GROUP
    ("domain:write",),  # DOMAIN_DEL_THROTTLE_GROUP
    None,  # DOMAIN_EVENT_NIC_MAC_CHANGE
)

_QEMU: Final = (
    None,
    ("domain:write",),  # DOMAIN_MONITOR_COMMAND
    ("domain:start", "domain:write"),  # DOMAIN_ATTACH
    ("domain:write",),  # DOMAIN_AGENT_COMMAND
    ("connect:search_domains", "connect:write"),  # CONNECT_DOMAIN_MONITOR_EVENT_REGISTER
    ("connect:write",),  # CONNECT_DOMAIN_MONITOR_EVENT_DEREGISTER
    None,  # DOMAIN_MONITOR_EVENT
    ("domain:write",),  # DOMAIN_MONITOR_COMMAND_WITH_FILES
)

_LXC: Final = (
    None,
    ("domain:open_namespace",),  # DOMAIN_OPEN_NAMESPACE
)

_AT_TIMES: Final = {
    14: (  # DOMAIN_GET_XML_DESC
        Asked("domain:read_secure", 1),
        Asked("domain:read_secure", 8),
    ),
    27: (  # DOMAIN_REBOOT
        Asked("domain:write", 2),
    ),
    160: (  # DOMAIN_ATTACH_DEVICE_FLAGS
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    161: (  # DOMAIN_DETACH_DEVICE_FLAGS
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    174: (  # DOMAIN_UPDATE_DEVICE_FLAGS
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    185: (  # DOMAIN_SNAPSHOT_CREATE_XML
        Asked("domain:fs_freeze", 64),
    ),
    186: (  # DOMAIN_SNAPSHOT_GET_XML_DESC
        Asked("domain:read_secure", 1),
    ),
    197: (  # DOMAIN_SET_MEMORY_PARAMETERS
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    199: (  # DOMAIN_SET_VCPUS_FLAGS
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
        Asked("domain:write", 8),
    ),
    200: (  # DOMAIN_GET_VCPUS_FLAGS
        Asked("domain:write", 8),
    ),
    204: (  # DOMAIN_SET_MEMORY_FLAGS
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    205: (  # DOMAIN_SET_BLKIO_PARAMETERS
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    219: (  # DOMAIN_SET_SCHEDULER_PARAMETERS_FLAGS
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    225: (  # DOMAIN_PIN_VCPU_FLAGS
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    252: (  # DOMAIN_SET_BLOCK_IO_TUNE
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    254: (  # DOMAIN_SET_NUMA_PARAMETERS
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    256: (  # DOMAIN_SET_INTERFACE_PARAMETERS
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    258: (  # DOMAIN_SHUTDOWN_FLAGS
        Asked("domain:write", 2),
    ),
    264: (  # DOMAIN_SET_METADATA
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    279: (  # DOMAIN_PIN_EMULATOR
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    291: (  # NETWORK_UPDATE
        Asked("network:save", 3, unless=True),
        Asked("network:save", 2),
    ),
    308: (  # DOMAIN_SET_MEMORY_STATS_PERIOD
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    352: (  # DOMAIN_PIN_IOTHREAD
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    353: (  # DOMAIN_INTERFACE_ADDRESSES
        Asked("domain:write", 1),
    ),
    355: (  # DOMAIN_ADD_IOTHREAD
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    356: (  # DOMAIN_DEL_IOTHREAD
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    384: (  # DOMAIN_SET_VCPU
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    388: (  # DOMAIN_MANAGED_SAVE_GET_XML_DESC
        Asked("domain:read_secure", 1),
    ),
    392: (  # DOMAIN_DETACH_DEVICE_ALIAS
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    402: (  # DOMAIN_SET_IOTHREAD_PARAMS
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    411: (  # DOMAIN_CHECKPOINT_CREATE_XML
        Asked("domain:fs_freeze", 2),
    ),
    412: (  # DOMAIN_CHECKPOINT_GET_XML_DESC
        Asked("domain:read_secure", 1),
    ),
    444: (  # NETWORK_SET_METADATA
        Asked("network:save", 3, unless=True),
        Asked("network:save", 2),
    ),
    447: (  # NODE_DEVICE_UPDATE
        Asked("node_device:save", 3, unless=True),
        Asked("node_device:save", 2),
    ),
    451: (  # DOMAIN_SET_THROTTLE_GROUP
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
    452: (  # DOMAIN_DEL_THROTTLE_GROUP
        Asked("domain:save", 3, unless=True),
        Asked("domain:save", 2),
    ),
}

# What is always asked for, by number: nothing for (), and None is no call: an event, or no number.
ALWAYS: Final[dict[int, tuple[tuple[str, ...] | None, ...]]] = {
    Program.REMOTE: _REMOTE,
    Program.QEMU: _QEMU,
    Program.LXC: _LXC,
}

# What is asked for besides, by number.
SOMETIMES: Final[dict[int, dict[int, tuple[Asked, ...]]]] = {
    Program.REMOTE: _AT_TIMES,
}
