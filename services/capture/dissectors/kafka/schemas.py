"""The requests and responses of Kafka, as compact text: what follows the header of each.

From the message definitions of Apache Kafka 4.1 (clients/src/main/resources/common/message, Apache
License 2.0), with the older versions as they were before KIP-896 removed them. `messages` reads it.

A block begins with the key, the name, the highest version, and the first flexible one. `>` is the
request, `<` the response: fields in their order, `name:type` or `name [ fields ]` for a list of
structs, `name { fields }` for one. `@a-b` are the versions that have it, `#n` its tag, `?` that a
struct can be null; all else may be null. `secret` is for octets that nobody may store, and `config`
for a setting, which is secret where its name says so.
"""

SCHEMAS = """
0 Produce 13 9
 > transactionalId:str@3+ acks:i16 timeoutMs:i32 topicData [ name:str@0-12 topicId:uuid@13+
   partitionData [ index:i32 records:records ] ]
 < responses [ name:str@0-12 topicId:uuid@13+ partitionResponses [ index:i32 errorCode:i16
   baseOffset:i64 logAppendTimeMs:i64@2+ logStartOffset:i64@5+ recordErrors@8+ [ batchIndex:i32
   batchIndexErrorMessage:str ] errorMessage:str@8+ currentLeader#0@10+ { leaderId:i32
   leaderEpoch:i32 } ] ] throttleTimeMs:i32@1+ nodeEndpoints#0@10+ [ nodeId:i32 host:str port:i32
   rack:str ]
1 Fetch 18 12
 > clusterId:str#0@12+ replicaId:i32@0-14 replicaState#1@15+ { replicaId:i32 replicaEpoch:i64 }
   maxWaitMs:i32 minBytes:i32 maxBytes:i32@3+ isolationLevel:i8@4+ sessionId:i32@7+
   sessionEpoch:i32@7+ topics [ topic:str@0-12 topicId:uuid@13+ partitions [ partition:i32
   currentLeaderEpoch:i32@9+ fetchOffset:i64 lastFetchedEpoch:i32@12+ logStartOffset:i64@5+
   partitionMaxBytes:i32 replicaDirectoryId:uuid#0@17+ highWatermark:i64#1@18+ ] ]
   forgottenTopicsData@7+ [ topic:str@7-12 topicId:uuid@13+ partitions:[]i32 ] rackId:str@11+
 < throttleTimeMs:i32@1+ errorCode:i16@7+ sessionId:i32@7+ responses [ topic:str@0-12
   topicId:uuid@13+ partitions [ partitionIndex:i32 errorCode:i16 highWatermark:i64
   lastStableOffset:i64@4+ logStartOffset:i64@5+ divergingEpoch#0@12+ { epoch:i32 endOffset:i64 }
   currentLeader#1@12+ { leaderId:i32 leaderEpoch:i32 } snapshotId#2@12+ { endOffset:i64 epoch:i32
   } abortedTransactions@4+ [ producerId:i64 firstOffset:i64 ] preferredReadReplica:i32@11+
   records:records ] ] nodeEndpoints#0@16+ [ nodeId:i32 host:str port:i32 rack:str ]
2 ListOffsets 11 6
 > replicaId:i32 isolationLevel:i8@2+ topics [ name:str partitions [ partitionIndex:i32
   currentLeaderEpoch:i32@4+ timestamp:i64 maxNumOffsets:i32@0 ] ] timeoutMs:i32@10+
 < throttleTimeMs:i32@2+ topics [ name:str partitions [ partitionIndex:i32 errorCode:i16
   oldStyleOffsets:[]i64@0 timestamp:i64@1+ offset:i64@1+ leaderEpoch:i32@4+ ] ]
3 Metadata 13 9
 > topics [ topicId:uuid@10+ name:str ] allowAutoTopicCreation:bool@4+
   includeClusterAuthorizedOperations:bool@8-10 includeTopicAuthorizedOperations:bool@8+
 < throttleTimeMs:i32@3+ brokers [ nodeId:i32 host:str port:i32 rack:str@1+ ] clusterId:str@2+
   controllerId:i32@1+ topics [ errorCode:i16 name:str topicId:uuid@10+ isInternal:bool@1+
   partitions [ errorCode:i16 partitionIndex:i32 leaderId:i32 leaderEpoch:i32@7+
   replicaNodes:[]i32 isrNodes:[]i32 offlineReplicas:[]i32@5+ ] topicAuthorizedOperations:i32@8+ ]
   clusterAuthorizedOperations:i32@8-10 errorCode:i16@13+
8 OffsetCommit 10 8
 > groupId:str generationIdOrMemberEpoch:i32@1+ memberId:str@1+ groupInstanceId:str@7+
   retentionTimeMs:i64@2-4 topics [ name:str@0-9 topicId:uuid@10+ partitions [ partitionIndex:i32
   committedOffset:i64 committedLeaderEpoch:i32@6+ commitTimestamp:i64@1 committedMetadata:str ] ]
 < throttleTimeMs:i32@3+ topics [ name:str@0-9 topicId:uuid@10+ partitions [ partitionIndex:i32
   errorCode:i16 ] ]
9 OffsetFetch 10 6
 > groupId:str@0-7 topics@0-7 [ name:str partitionIndexes:[]i32 ] groups@8+ [ groupId:str
   memberId:str@9+ memberEpoch:i32@9+ topics [ name:str@8-9 topicId:uuid@10+
   partitionIndexes:[]i32 ] ] requireStable:bool@7+
 < throttleTimeMs:i32@3+ topics@0-7 [ name:str partitions [ partitionIndex:i32 committedOffset:i64
   committedLeaderEpoch:i32@5-7 metadata:str errorCode:i16 ] ] errorCode:i16@2-7 groups@8+ [
   groupId:str topics [ name:str@8-9 topicId:uuid@10+ partitions [ partitionIndex:i32
   committedOffset:i64 committedLeaderEpoch:i32 metadata:str errorCode:i16 ] ] errorCode:i16 ]
10 FindCoordinator 6 3
 > key:str@0-3 keyType:i8@1+ coordinatorKeys:[]str@4+
 < throttleTimeMs:i32@1+ errorCode:i16@0-3 errorMessage:str@1-3 nodeId:i32@0-3 host:str@0-3
   port:i32@0-3 coordinators@4+ [ key:str nodeId:i32 host:str port:i32 errorCode:i16
   errorMessage:str ]
11 JoinGroup 9 6
 > groupId:str sessionTimeoutMs:i32 rebalanceTimeoutMs:i32@1+ memberId:str groupInstanceId:str@5+
   protocolType:str protocols [ name:str metadata:bytes ] reason:str@8+
 < throttleTimeMs:i32@2+ errorCode:i16 generationId:i32 protocolType:str@7+ protocolName:str
   leader:str skipAssignment:bool@9+ memberId:str members [ memberId:str groupInstanceId:str@5+
   metadata:bytes ]
12 Heartbeat 4 4
 > groupId:str generationId:i32 memberId:str groupInstanceId:str@3+
 < throttleTimeMs:i32@1+ errorCode:i16
13 LeaveGroup 5 4
 > groupId:str memberId:str@0-2 members@3+ [ memberId:str groupInstanceId:str reason:str@5+ ]
 < throttleTimeMs:i32@1+ errorCode:i16 members@3+ [ memberId:str groupInstanceId:str errorCode:i16
   ]
14 SyncGroup 5 4
 > groupId:str generationId:i32 memberId:str groupInstanceId:str@3+ protocolType:str@5+
   protocolName:str@5+ assignments [ memberId:str assignment:bytes ]
 < throttleTimeMs:i32@1+ errorCode:i16 protocolType:str@5+ protocolName:str@5+ assignment:bytes
15 DescribeGroups 6 5
 > groups:[]str includeAuthorizedOperations:bool@3+
 < throttleTimeMs:i32@1+ groups [ errorCode:i16 errorMessage:str@6+ groupId:str groupState:str
   protocolType:str protocolData:str members [ memberId:str groupInstanceId:str@4+ clientId:str
   clientHost:str memberMetadata:bytes memberAssignment:bytes ] authorizedOperations:i32@3+ ]
16 ListGroups 5 3
 > statesFilter:[]str@4+ typesFilter:[]str@5+
 < throttleTimeMs:i32@1+ errorCode:i16 groups [ groupId:str protocolType:str groupState:str@4+
   groupType:str@5+ ]
17 SaslHandshake 1
 > mechanism:str
 < errorCode:i16 mechanisms:[]str
18 ApiVersions 4 3
 > clientSoftwareName:str@3+ clientSoftwareVersion:str@3+
 < errorCode:i16 apiKeys [ apiKey:i16 minVersion:i16 maxVersion:i16 ] throttleTimeMs:i32@1+
   supportedFeatures#0@3+ [ name:str minVersion:i16 maxVersion:i16 ]
   finalizedFeaturesEpoch:i64#1@3+ finalizedFeatures#2@3+ [ name:str maxVersionLevel:i16
   minVersionLevel:i16 ] zkMigrationReady:bool#3@3+
19 CreateTopics 7 5
 > topics [ name:str numPartitions:i32 replicationFactor:i16 assignments [ partitionIndex:i32
   brokerIds:[]i32 ] configs [ name:str value:str ] ] timeoutMs:i32 validateOnly:bool@1+
 < throttleTimeMs:i32@2+ topics [ name:str topicId:uuid@7+ errorCode:i16 errorMessage:str@1+
   topicConfigErrorCode:i16#0@5+ numPartitions:i32@5+ replicationFactor:i16@5+ configs@5+ [
   name:str value:str readOnly:bool configSource:i8 isSensitive:bool ] ]
20 DeleteTopics 6 4
 > topics@6+ [ name:str topicId:uuid ] topicNames:[]str@0-5 timeoutMs:i32
 < throttleTimeMs:i32@1+ responses [ name:str topicId:uuid@6+ errorCode:i16 errorMessage:str@5+ ]
21 DeleteRecords 2 2
 > topics [ name:str partitions [ partitionIndex:i32 offset:i64 ] ] timeoutMs:i32
 < throttleTimeMs:i32 topics [ name:str partitions [ partitionIndex:i32 lowWatermark:i64
   errorCode:i16 ] ]
22 InitProducerId 6 2
 > transactionalId:str transactionTimeoutMs:i32 producerId:i64@3+ producerEpoch:i16@3+
   enable2Pc:bool@6+ keepPreparedTxn:bool@6+
 < throttleTimeMs:i32 errorCode:i16 producerId:i64 producerEpoch:i16 ongoingTxnProducerId:i64@6+
   ongoingTxnProducerEpoch:i16@6+
23 OffsetForLeaderEpoch 4 4
 > replicaId:i32@3+ topics [ topic:str partitions [ partition:i32 currentLeaderEpoch:i32@2+
   leaderEpoch:i32 ] ]
 < throttleTimeMs:i32@2+ topics [ topic:str partitions [ errorCode:i16 partition:i32
   leaderEpoch:i32@1+ endOffset:i64 ] ]
24 AddPartitionsToTxn 5 3
 > transactions@4+ [ transactionalId:str producerId:i64 producerEpoch:i16 verifyOnly:bool topics [
   name:str partitions:[]i32 ] ] v3AndBelowTransactionalId:str@0-3 v3AndBelowProducerId:i64@0-3
   v3AndBelowProducerEpoch:i16@0-3 v3AndBelowTopics@0-3 [ name:str partitions:[]i32 ]
 < throttleTimeMs:i32 errorCode:i16@4+ resultsByTransaction@4+ [ transactionalId:str topicResults
   [ name:str resultsByPartition [ partitionIndex:i32 partitionErrorCode:i16 ] ] ]
   resultsByTopicV3AndBelow@0-3 [ name:str resultsByPartition [ partitionIndex:i32
   partitionErrorCode:i16 ] ]
25 AddOffsetsToTxn 4 3
 > transactionalId:str producerId:i64 producerEpoch:i16 groupId:str
 < throttleTimeMs:i32 errorCode:i16
26 EndTxn 5 3
 > transactionalId:str producerId:i64 producerEpoch:i16 committed:bool
 < throttleTimeMs:i32 errorCode:i16 producerId:i64@5+ producerEpoch:i16@5+
27 WriteTxnMarkers 2 1
 > markers [ producerId:i64 producerEpoch:i16 transactionResult:bool topics [ name:str
   partitionIndexes:[]i32 ] coordinatorEpoch:i32 transactionVersion:i8@2+ ]
 < markers [ producerId:i64 topics [ name:str partitions [ partitionIndex:i32 errorCode:i16 ] ] ]
28 TxnOffsetCommit 5 3
 > transactionalId:str groupId:str producerId:i64 producerEpoch:i16 generationId:i32@3+
   memberId:str@3+ groupInstanceId:str@3+ topics [ name:str partitions [ partitionIndex:i32
   committedOffset:i64 committedLeaderEpoch:i32@2+ committedMetadata:str ] ]
 < throttleTimeMs:i32 topics [ name:str partitions [ partitionIndex:i32 errorCode:i16 ] ]
29 DescribeAcls 3 2
 > resourceTypeFilter:i8 resourceNameFilter:str patternTypeFilter:i8@1+ principalFilter:str
   hostFilter:str operation:i8 permissionType:i8
 < throttleTimeMs:i32 errorCode:i16 errorMessage:str resources [ resourceType:i8 resourceName:str
   patternType:i8@1+ acls [ principal:str host:str operation:i8 permissionType:i8 ] ]
30 CreateAcls 3 2
 > creations [ resourceType:i8 resourceName:str resourcePatternType:i8@1+ principal:str host:str
   operation:i8 permissionType:i8 ]
 < throttleTimeMs:i32 results [ errorCode:i16 errorMessage:str ]
31 DeleteAcls 3 2
 > filters [ resourceTypeFilter:i8 resourceNameFilter:str patternTypeFilter:i8@1+
   principalFilter:str hostFilter:str operation:i8 permissionType:i8 ]
 < throttleTimeMs:i32 filterResults [ errorCode:i16 errorMessage:str matchingAcls [ errorCode:i16
   errorMessage:str resourceType:i8 resourceName:str patternType:i8@1+ principal:str host:str
   operation:i8 permissionType:i8 ] ]
32 DescribeConfigs 4 4
 > resources [ resourceType:i8 resourceName:str configurationKeys:[]str ] includeSynonyms:bool@1+
   includeDocumentation:bool@3+
 < throttleTimeMs:i32 results [ errorCode:i16 errorMessage:str resourceType:i8 resourceName:str
   configs [ name:str value:str readOnly:bool configSource:i8@1+ isDefault:bool@0 isSensitive:bool
   synonyms@1+ [ name:str value:str source:i8 ] configType:i8@3+ documentation:str@3+ ] ]
33 AlterConfigs 2 2
 > resources [ resourceType:i8 resourceName:str configs [ name:str value:config ] ]
   validateOnly:bool
 < throttleTimeMs:i32 responses [ errorCode:i16 errorMessage:str resourceType:i8 resourceName:str
   ]
34 AlterReplicaLogDirs 2 2
 > dirs [ path:str topics [ name:str partitions:[]i32 ] ]
 < throttleTimeMs:i32 results [ topicName:str partitions [ partitionIndex:i32 errorCode:i16 ] ]
35 DescribeLogDirs 5 2
 > topics [ topic:str partitions:[]i32 ]
 < throttleTimeMs:i32 errorCode:i16@3+ results [ errorCode:i16 logDir:str topics [ name:str
   partitions [ partitionIndex:i32 partitionSize:i64 offsetLag:i64 isFutureKey:bool ] ]
   totalBytes:i64@4+ usableBytes:i64@4+ isCordoned:bool@5+ ]
36 SaslAuthenticate 2 2
 > authBytes:secret
 < errorCode:i16 errorMessage:str authBytes:secret sessionLifetimeMs:i64@1+
37 CreatePartitions 3 2
 > topics [ name:str count:i32 assignments [ brokerIds:[]i32 ] ] timeoutMs:i32 validateOnly:bool
 < throttleTimeMs:i32 results [ name:str errorCode:i16 errorMessage:str ]
38 CreateDelegationToken 3 2
 > ownerPrincipalType:str@3+ ownerPrincipalName:str@3+ renewers [ principalType:str
   principalName:str ] maxLifetimeMs:i64
 < errorCode:i16 principalType:str principalName:str tokenRequesterPrincipalType:str@3+
   tokenRequesterPrincipalName:str@3+ issueTimestampMs:i64 expiryTimestampMs:i64
   maxTimestampMs:i64 tokenId:str hmac:secret throttleTimeMs:i32
39 RenewDelegationToken 2 2
 > hmac:secret renewPeriodMs:i64
 < errorCode:i16 expiryTimestampMs:i64 throttleTimeMs:i32
40 ExpireDelegationToken 2 2
 > hmac:secret expiryTimePeriodMs:i64
 < errorCode:i16 expiryTimestampMs:i64 throttleTimeMs:i32
41 DescribeDelegationToken 3 2
 > owners [ principalType:str principalName:str ]
 < errorCode:i16 tokens [ principalType:str principalName:str tokenRequesterPrincipalType:str@3+
   tokenRequesterPrincipalName:str@3+ issueTimestamp:i64 expiryTimestamp:i64 maxTimestamp:i64
   tokenId:str hmac:secret renewers [ principalType:str principalName:str ] ] throttleTimeMs:i32
42 DeleteGroups 2 2
 > groupsNames:[]str
 < throttleTimeMs:i32 results [ groupId:str errorCode:i16 ]
43 ElectLeaders 2 2
 > electionType:i8@1+ topicPartitions [ topic:str partitions:[]i32 ] timeoutMs:i32
 < throttleTimeMs:i32 errorCode:i16@1+ replicaElectionResults [ topic:str partitionResult [
   partitionId:i32 errorCode:i16 errorMessage:str ] ]
44 IncrementalAlterConfigs 1 1
 > resources [ resourceType:i8 resourceName:str configs [ name:str configOperation:i8 value:config
   ] ] validateOnly:bool
 < throttleTimeMs:i32 responses [ errorCode:i16 errorMessage:str resourceType:i8 resourceName:str
   ]
45 AlterPartitionReassignments 1 0
 > timeoutMs:i32 allowReplicationFactorChange:bool@1+ topics [ name:str partitions [
   partitionIndex:i32 replicas:[]i32 ] ]
 < throttleTimeMs:i32 allowReplicationFactorChange:bool@1+ errorCode:i16 errorMessage:str
   responses [ name:str partitions [ partitionIndex:i32 errorCode:i16 errorMessage:str ] ]
46 ListPartitionReassignments 0 0
 > timeoutMs:i32 topics [ name:str partitionIndexes:[]i32 ]
 < throttleTimeMs:i32 errorCode:i16 errorMessage:str topics [ name:str partitions [
   partitionIndex:i32 replicas:[]i32 addingReplicas:[]i32 removingReplicas:[]i32 ] ]
47 OffsetDelete 0
 > groupId:str topics [ name:str partitions [ partitionIndex:i32 ] ]
 < errorCode:i16 throttleTimeMs:i32 topics [ name:str partitions [ partitionIndex:i32
   errorCode:i16 ] ]
48 DescribeClientQuotas 1 1
 > components [ entityType:str matchType:i8 match:str ] strict:bool
 < throttleTimeMs:i32 errorCode:i16 errorMessage:str entries [ entity [ entityType:str
   entityName:str ] values [ key:str value:f64 ] ]
49 AlterClientQuotas 1 1
 > entries [ entity [ entityType:str entityName:str ] ops [ key:str value:f64 remove:bool ] ]
   validateOnly:bool
 < throttleTimeMs:i32 entries [ errorCode:i16 errorMessage:str entity [ entityType:str
   entityName:str ] ]
50 DescribeUserScramCredentials 0 0
 > users [ name:str ]
 < throttleTimeMs:i32 errorCode:i16 errorMessage:str results [ user:str errorCode:i16
   errorMessage:str credentialInfos [ mechanism:i8 iterations:i32 ] ]
51 AlterUserScramCredentials 0 0
 > deletions [ name:str mechanism:i8 ] upsertions [ name:str mechanism:i8 iterations:i32
   salt:secret saltedPassword:secret ]
 < throttleTimeMs:i32 results [ user:str errorCode:i16 errorMessage:str ]
55 DescribeQuorum 2 0
 > topics [ topicName:str partitions [ partitionIndex:i32 ] ]
 < errorCode:i16 errorMessage:str@2+ topics [ topicName:str partitions [ partitionIndex:i32
   errorCode:i16 errorMessage:str@2+ leaderId:i32 leaderEpoch:i32 highWatermark:i64 currentVoters
   [ replicaId:i32 replicaDirectoryId:uuid@2+ logEndOffset:i64 lastFetchTimestamp:i64@1+
   lastCaughtUpTimestamp:i64@1+ ] observers [ replicaId:i32 replicaDirectoryId:uuid@2+
   logEndOffset:i64 lastFetchTimestamp:i64@1+ lastCaughtUpTimestamp:i64@1+ ] ] ] nodes@2+ [
   nodeId:i32 listeners [ name:str host:str port:u16 ] ]
57 UpdateFeatures 2 0
 > timeoutMs:i32 featureUpdates [ feature:str maxVersionLevel:i16 allowDowngrade:bool@0
   upgradeType:i8@1+ ] validateOnly:bool@1+
 < throttleTimeMs:i32 errorCode:i16 errorMessage:str results@0-1 [ feature:str errorCode:i16
   errorMessage:str ]
60 DescribeCluster 2 0
 > includeClusterAuthorizedOperations:bool endpointType:i8@1+ includeFencedBrokers:bool@2+
 < throttleTimeMs:i32 errorCode:i16 errorMessage:str endpointType:i8@1+ clusterId:str
   controllerId:i32 brokers [ brokerId:i32 host:str port:i32 rack:str isFenced:bool@2+ ]
   clusterAuthorizedOperations:i32
61 DescribeProducers 0 0
 > topics [ name:str partitionIndexes:[]i32 ]
 < throttleTimeMs:i32 topics [ name:str partitions [ partitionIndex:i32 errorCode:i16
   errorMessage:str activeProducers [ producerId:i64 producerEpoch:i32 lastSequence:i32
   lastTimestamp:i64 coordinatorEpoch:i32 currentTxnStartOffset:i64 ] ] ]
65 DescribeTransactions 0 0
 > transactionalIds:[]str
 < throttleTimeMs:i32 transactionStates [ errorCode:i16 transactionalId:str transactionState:str
   transactionTimeoutMs:i32 transactionStartTimeMs:i64 producerId:i64 producerEpoch:i16 topics [
   topic:str partitions:[]i32 ] ]
66 ListTransactions 2 0
 > stateFilters:[]str producerIdFilters:[]i64 durationFilter:i64@1+ transactionalIdPattern:str@2+
 < throttleTimeMs:i32 errorCode:i16 unknownStateFilters:[]str transactionStates [
   transactionalId:str producerId:i64 transactionState:str ]
68 ConsumerGroupHeartbeat 1 0
 > groupId:str memberId:str memberEpoch:i32 instanceId:str rackId:str rebalanceTimeoutMs:i32
   subscribedTopicNames:[]str subscribedTopicRegex:str@1+ serverAssignor:str topicPartitions [
   topicId:uuid partitions:[]i32 ]
 < throttleTimeMs:i32 errorCode:i16 errorMessage:str memberId:str memberEpoch:i32
   heartbeatIntervalMs:i32 assignment? { topicPartitions [ topicId:uuid partitions:[]i32 ] }
69 ConsumerGroupDescribe 1 0
 > groupIds:[]str includeAuthorizedOperations:bool
 < throttleTimeMs:i32 groups [ errorCode:i16 errorMessage:str groupId:str groupState:str
   groupEpoch:i32 assignmentEpoch:i32 assignorName:str members [ memberId:str instanceId:str
   rackId:str memberEpoch:i32 clientId:str clientHost:str subscribedTopicNames:[]str
   subscribedTopicRegex:str assignment { topicPartitions [ topicId:uuid topicName:str
   partitions:[]i32 ] } targetAssignment { topicPartitions [ topicId:uuid topicName:str
   partitions:[]i32 ] } memberType:i8@1+ ] authorizedOperations:i32 ]
71 GetTelemetrySubscriptions 0 0
 > clientInstanceId:uuid
 < throttleTimeMs:i32 errorCode:i16 clientInstanceId:uuid subscriptionId:i32
   acceptedCompressionTypes:[]i8 pushIntervalMs:i32 telemetryMaxBytes:i32 deltaTemporality:bool
   requestedMetrics:[]str
72 PushTelemetry 0 0
 > clientInstanceId:uuid subscriptionId:i32 terminating:bool compressionType:i8 metrics:bytes
 < throttleTimeMs:i32 errorCode:i16
74 ListConfigResources 1 0
 > resourceTypes:[]i8@1+
 < throttleTimeMs:i32 errorCode:i16 configResources [ resourceName:str resourceType:i8@1+ ]
75 DescribeTopicPartitions 0 0
 > topics [ name:str ] responsePartitionLimit:i32 cursor? { topicName:str partitionIndex:i32 }
 < throttleTimeMs:i32 topics [ errorCode:i16 name:str topicId:uuid isInternal:bool partitions [
   errorCode:i16 partitionIndex:i32 leaderId:i32 leaderEpoch:i32 replicaNodes:[]i32 isrNodes:[]i32
   eligibleLeaderReplicas:[]i32 lastKnownElr:[]i32 offlineReplicas:[]i32 ]
   topicAuthorizedOperations:i32 ] nextCursor? { topicName:str partitionIndex:i32 }
76 ShareGroupHeartbeat 1 1
 > groupId:str memberId:str memberEpoch:i32 rackId:str subscribedTopicNames:[]str
 < throttleTimeMs:i32 errorCode:i16 errorMessage:str memberId:str memberEpoch:i32
   heartbeatIntervalMs:i32 assignment? { topicPartitions [ topicId:uuid partitions:[]i32 ] }
77 ShareGroupDescribe 1 1
 > groupIds:[]str includeAuthorizedOperations:bool
 < throttleTimeMs:i32 groups [ errorCode:i16 errorMessage:str groupId:str groupState:str
   groupEpoch:i32 assignmentEpoch:i32 assignorName:str members [ memberId:str rackId:str
   memberEpoch:i32 clientId:str clientHost:str subscribedTopicNames:[]str assignment {
   topicPartitions [ topicId:uuid topicName:str partitions:[]i32 ] } ] authorizedOperations:i32 ]
78 ShareFetch 2 1
 > groupId:str memberId:str shareSessionEpoch:i32 maxWaitMs:i32 minBytes:i32 maxBytes:i32
   maxRecords:i32 batchSize:i32 shareAcquireMode:i8@2+ isRenewAck:bool@2+ topics [ topicId:uuid
   partitions [ partitionIndex:i32 acknowledgementBatches [ firstOffset:i64 lastOffset:i64
   acknowledgeTypes:[]i8 ] ] ] forgottenTopicsData [ topicId:uuid partitions:[]i32 ]
 < throttleTimeMs:i32 errorCode:i16 errorMessage:str acquisitionLockTimeoutMs:i32 responses [
   topicId:uuid partitions [ partitionIndex:i32 errorCode:i16 errorMessage:str
   acknowledgeErrorCode:i16 acknowledgeErrorMessage:str currentLeader { leaderId:i32
   leaderEpoch:i32 } records:records acquiredRecords [ firstOffset:i64 lastOffset:i64
   deliveryCount:i16 ] ] ] nodeEndpoints [ nodeId:i32 host:str port:i32 rack:str ]
79 ShareAcknowledge 2 1
 > groupId:str memberId:str shareSessionEpoch:i32 isRenewAck:bool@2+ topics [ topicId:uuid
   partitions [ partitionIndex:i32 acknowledgementBatches [ firstOffset:i64 lastOffset:i64
   acknowledgeTypes:[]i8 ] ] ]
 < throttleTimeMs:i32 errorCode:i16 errorMessage:str acquisitionLockTimeoutMs:i32@2+ responses [
   topicId:uuid partitions [ partitionIndex:i32 errorCode:i16 errorMessage:str currentLeader {
   leaderId:i32 leaderEpoch:i32 } ] ] nodeEndpoints [ nodeId:i32 host:str port:i32 rack:str ]
88 StreamsGroupHeartbeat 0 0
 > groupId:str memberId:str memberEpoch:i32 endpointInformationEpoch:i32 instanceId:str rackId:str
   rebalanceTimeoutMs:i32 topology? { epoch:i32 subtopologies [ subtopologyId:str
   sourceTopics:[]str sourceTopicRegex:[]str stateChangelogTopics [ name:str partitions:i32
   replicationFactor:i16 topicConfigs [ key:str value:str ] ] repartitionSinkTopics:[]str
   repartitionSourceTopics [ name:str partitions:i32 replicationFactor:i16 topicConfigs [ key:str
   value:str ] ] copartitionGroups [ sourceTopics:[]i16 sourceTopicRegex:[]i16
   repartitionSourceTopics:[]i16 ] ] } activeTasks [ subtopologyId:str partitions:[]i32 ]
   standbyTasks [ subtopologyId:str partitions:[]i32 ] warmupTasks [ subtopologyId:str
   partitions:[]i32 ] processId:str userEndpoint? { host:str port:u16 } clientTags [ key:str
   value:str ] taskOffsets [ subtopologyId:str partition:i32 offset:i64 ] taskEndOffsets [
   subtopologyId:str partition:i32 offset:i64 ] shutdownApplication:bool
 < throttleTimeMs:i32 errorCode:i16 errorMessage:str memberId:str memberEpoch:i32
   heartbeatIntervalMs:i32 acceptableRecoveryLag:i32 taskOffsetIntervalMs:i32 status [
   statusCode:i8 statusDetail:str ] activeTasks [ subtopologyId:str partitions:[]i32 ]
   standbyTasks [ subtopologyId:str partitions:[]i32 ] warmupTasks [ subtopologyId:str
   partitions:[]i32 ] endpointInformationEpoch:i32 partitionsByUserEndpoint [ userEndpoint {
   host:str port:u16 } activePartitions [ topic:str partitions:[]i32 ] standbyPartitions [
   topic:str partitions:[]i32 ] ]
89 StreamsGroupDescribe 0 0
 > groupIds:[]str includeAuthorizedOperations:bool
 < throttleTimeMs:i32 groups [ errorCode:i16 errorMessage:str groupId:str groupState:str
   groupEpoch:i32 assignmentEpoch:i32 topology? { epoch:i32 subtopologies [ subtopologyId:str
   sourceTopics:[]str repartitionSinkTopics:[]str stateChangelogTopics [ name:str partitions:i32
   replicationFactor:i16 topicConfigs [ key:str value:str ] ] repartitionSourceTopics [ name:str
   partitions:i32 replicationFactor:i16 topicConfigs [ key:str value:str ] ] ] } members [
   memberId:str memberEpoch:i32 instanceId:str rackId:str clientId:str clientHost:str
   topologyEpoch:i32 processId:str userEndpoint? { host:str port:u16 } clientTags [ key:str
   value:str ] taskOffsets [ subtopologyId:str partition:i32 offset:i64 ] taskEndOffsets [
   subtopologyId:str partition:i32 offset:i64 ] assignment { activeTasks [ subtopologyId:str
   partitions:[]i32 ] standbyTasks [ subtopologyId:str partitions:[]i32 ] warmupTasks [
   subtopologyId:str partitions:[]i32 ] } targetAssignment { activeTasks [ subtopologyId:str
   partitions:[]i32 ] standbyTasks [ subtopologyId:str partitions:[]i32 ] warmupTasks [
   subtopologyId:str partitions:[]i32 ] } isClassic:bool ] authorizedOperations:i32 ]
"""
