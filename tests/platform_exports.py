"""Small exports as the platforms write them, each with a few people whose words about mail differ.

Used by the tests of presets at every level; the people are invented.
"""

SHOPIFY = '''\
Customer ID,First Name,Last Name,Email,Accepts Email Marketing,Default Address Company,Default Address Address1,\
Default Address Address2,Default Address City,Default Address Province Code,Default Address Country Code,\
Default Address Zip,Default Address Phone,Phone,Accepts SMS Marketing,Total Spent,Total Orders,Note,Tax Exempt,Tags
'7210448301122,Anna,Weber,anna@shop.example,yes,,Hauptstr. 1,,Bonn,NW,DE,'53111,'+49 228 1,'+4915112345678,no,120.50,\
3,,no,"vip, b2b | wholesale, ""quoted"""
'7210448301123,Ben,Ito,ben@shop.example,no,"Ito, Inc.",1 Main St,,Reno,NV,US,'89501,(775) 555-0154,,yes,0.00,0,\
"Two
lines",yes,
'''
SHOPIFY_OLD = '''\
First Name,Last Name,Email,Company,Address1,Address2,City,Province,Province Code,Country,Country Code,Zip,Phone,\
Accepts Marketing,Total Spent,Total Orders,Tags,Note,Tax Exempt
Cleo,Roy,cleo@shop.example,,5 Rue X,,Lyon,,,France,FR,69001,,yes,10.00,1,,,no
Dan,Low,dan@shop.example,,,,,,,United Kingdom,,,,no,0.00,0,,,no
'''
WOO_ANALYTICS = '''\
Name,Username,Last Active,Date Registered,Email,Orders,Total Spend,AOV,Country / Region,City,Region,Postal Code
Eva van der Berg,eva,2026-02-01 10:00:00,2024-05-06 07:08:09,eva@shop.example,4,200.00,50.00,NL,Utrecht,,3511
Guest,,2026-01-01 09:00:00,,guest@shop.example,1,20.00,20.00,DE,,,
'''
WOO_EXTENSION = '''\
customer_id,username,first_name,last_name,email,date_registered,billing_first_name,billing_last_name,billing_company,\
billing_email,billing_phone,billing_address_1,billing_postcode,billing_city,billing_state,billing_country,\
shipping_country,total_spent,order_count
12,finn,,,finn@shop.example,2023-01-02 03:04:05,Finn,Olsen,,bills@shop.example,+4790000000,Gate 1,0150,Oslo,,NO,SE,\
99.00,2
0,,,,,,Gerd,Moe,,gerd@shop.example,,,,,,,SE,10.00,1
'''
WOO_USERS = '''\
ID,customer_id,user_login,user_pass,user_email,user_registered,first_name,last_name,roles,locale,session_tokens,\
billing_first_name,billing_last_name,billing_email,billing_phone,billing_country
7,7,hugo,$P$BsecretHash,hugo@shop.example,2022-02-03 04:05:06,Hugo,Paz,customer,es_MX,a:1:{s:64:secret},Hugo,Paz,\
hugo@shop.example,55 1234,MX
'''
MAILCHIMP_SUBSCRIBED = '''\
"Email Address","First Name","Last Name","Phone Number",MEMBER_RATING,OPTIN_TIME,OPTIN_IP,CONFIRM_TIME,CONFIRM_IP,\
LATITUDE,LONGITUDE,GMTOFF,DSTOFF,TIMEZONE,CC,REGION,LAST_CHANGED,LEID,EUID,NOTES,TAGS
ida@shop.example,Ida,Holm,,4,"2020-01-02 03:04:05",192.0.2.1,"2020-01-02 03:09:00",192.0.2.1,55.6,12.5,1,2,\
Europe/Copenhagen,DK,84,"2021-01-01 00:00:00",101,aa11,,"""VIP"",""Blog, news"""
jon@shop.example,Jon,Day,,2,,,"2019-05-05 05:05:05",,,,,,,,,"2019-05-05 05:05:05",102,bb22,"Met at, the fair",
'''
MAILCHIMP_UNSUBSCRIBED = '''\
"Email Address","First Name","Last Name",MEMBER_RATING,OPTIN_TIME,OPTIN_IP,CONFIRM_TIME,CONFIRM_IP,GMTOFF,DSTOFF,\
TIMEZONE,CC,REGION,UNSUB_TIME,UNSUB_CAMPAIGN_TITLE,UNSUB_CAMPAIGN_ID,UNSUB_REASON,UNSUB_REASON_OTHER,LEID,EUID,NOTES,TAGS
kim@shop.example,Kim,Lee,2,"2020-01-01 00:00:00",192.0.2.9,"2020-01-01 00:00:00",192.0.2.9,9,9,Asia/Seoul,KR,11,\
"2023-03-04 05:06:07",Spring,77,NORMAL,,103,cc33,,
lea@shop.example,Lea,May,1,,,,,,,,,,,,,,,104,dd44,,
'''
MAILCHIMP_CLEANED = '''\
"Email Address","First Name","Last Name",MEMBER_RATING,OPTIN_TIME,OPTIN_IP,CONFIRM_TIME,CONFIRM_IP,GMTOFF,DSTOFF,\
TIMEZONE,CC,REGION,CLEAN_TIME,CLEAN_CAMPAIGN_TITLE,CLEAN_CAMPAIGN_ID,LEID,EUID,NOTES,TAGS
mia@shop.example,Mia,Sol,1,"2020-01-01 00:00:00",192.0.2.7,"2020-01-01 00:00:00",192.0.2.7,,,,,,"2022-02-02 02:02:02",\
Sale,78,105,ee55,,
'''
KLAVIYO = '''\
Email,Klaviyo ID,First Name,Last Name,Organization,Title,Phone Number,Address,Address 2,City,State / Region,Country,\
Zip Code,Latitude,Longitude,Source,IP Address,Email Marketing Consent,Email Marketing Consent Timestamp,\
SMS Marketing Consent,Historic Customer Lifetime Value,First Active,Last Active,Profile Created On,Date Added,\
Email Suppressions,Shopify Tags,Accepts Marketing
nia@shop.example,01H1,Nia,Ortiz,,,+34600000000,,,Madrid,,Spain,28001,,,Form,,SUBSCRIBED,2024-01-01T10:00:00+00:00,\
NEVER_SUBSCRIBED,10.0,,,2023-12-31 09:00:00,2024-01-01 10:00:00,[],"[""vip"", ""a|b""]",true
olu@shop.example,01H2,Olu,Ade,,,,,,,,Nigeria,,,,,,NEVER_SUBSCRIBED,,,0,,,2023-05-05 00:00:00,,,[],false
pia@shop.example,01H3,Pia,Kern,,,,,,,,Germany,,,,,,UNSUBSCRIBED,2025-02-02T00:00:00Z,,0,,,2022-05-05 00:00:00,,,,
quy@shop.example,01H4,Quy,Tran,,,,,,,,Vietnam,,,,,,SUBSCRIBED,2021-01-01T00:00:00Z,,0,,,2021-01-01 00:00:00,,\
"[""HARD_BOUNCE""]",,
rob@shop.example,01H5,Rob,Ray,,,,,,,,,,,,,,Maybe,,,0,,,2021-01-01 00:00:00,,,,
sue@shop.example,01H6,Sue,Fox,,,,,,,,,,,,,,,,,0,,,2021-01-01 00:00:00,,,,
'''
